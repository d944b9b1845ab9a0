// Products with AVX512-VNNI, byte dot products on 512 bits (Cascade Lake 2019, Zen 4).
#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

// No function that other files compile too (inline functions of the standard library) may be used below.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#include "avx2.h"
#include "avx512.h"

namespace ggserve {
namespace {

struct Set : Avx512 {
    static constexpr Dot DOT = Dot::DPBUSD;
    static Ints dot(Ints sum, Bytes w, const int8_t * a) { return _mm512_dpbusd_epi32(sum, w, broadcast(a)); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// Not timed since the packed layout became that of all sets. ggml repacks Q2_K for AVX512 itself.
static bool is_faster(ggml_type type) { return type != GGML_TYPE_Q2_K; }

extern const KernelSet avx512vnni_kernels;
const KernelSet avx512vnni_kernels = {"avx512vnni", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
