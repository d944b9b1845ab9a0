// What this processor and its operating system can run.
#pragma once

// Whether the compiler has NEON's byte dot product for functions only: Clang before 16 has it for whole files.
#if defined(__aarch64__) && (!defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD))
#define GGSERVE_DOTPROD 1
#endif

namespace ggserve {

struct Cpu {
    // x86-64: with all that the kernels of this name also use
    bool avx2 = false, avxvnni = false, avx512 = false, avx512vnni = false;
    bool dotprod = false;  // aarch64
};

const Cpu & cpu();

}  // namespace ggserve
