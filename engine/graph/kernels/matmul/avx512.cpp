// Products with AVX512 without byte dot products (Skylake-X 2017).
#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

// No function that other files compile too (inline functions of the standard library) may be used below.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#endif

#include "avx2.h"
#include "avx512.h"

namespace ggserve {
namespace {

struct Set : Avx512 {
    static constexpr Dot DOT = Dot::MADDUBS;
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// Not measured; as AVX2, but for Q2_K, which ggml repacks for AVX512 only.
static bool is_faster(ggml_type type) { return type != GGML_TYPE_Q2_K; }

extern const KernelSet avx512_kernels;
const KernelSet avx512_kernels = {"avx512", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
