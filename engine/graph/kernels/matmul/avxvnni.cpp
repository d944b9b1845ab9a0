// Products with AVX-VNNI, byte dot products on 256 bits (Alder Lake 2021, Zen 5).
#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

// No function that other files compile too (inline functions of the standard library) may be used below.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

#include "avx2.h"

namespace ggserve {
namespace {

struct Set : Avx2 {
    static constexpr Dot DOT = Dot::DPBUSD;
    static Ints dot(Ints sum, Bytes w, const int8_t * a) { return _mm256_dpbusd_avx_epi32(sum, w, broadcast(a)); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// Not measured; with fewer instructions than AVX2, which is faster for all of them.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet avxvnni_kernels;
const KernelSet avxvnni_kernels = {"avxvnni", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
