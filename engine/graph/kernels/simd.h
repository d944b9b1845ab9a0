// Vectors of floats of the width that the target has, with GCC's and Clang's vector extensions.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__) || defined(__AVX2__) || defined(__AVX512F__)  // F16C is older than AVX2
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "ggml.h"

namespace ggserve {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * sizeof(float))));
typedef int32_t vi __attribute__((vector_size(W * sizeof(int32_t))));

static inline vf load(const float * p) { vf v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float * p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf splat(float x) { return x - vf{}; }
static inline vf select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
static inline vf maximum(vf a, vf b) { return select(a > b, a, b); }

// a b + c, rounded once where the target can.
static inline vf madd(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

// Always by halves: v[i] + v[i + W / 2], and so on. What sums in another way, to the same bits, relies on it.
static inline float sum(vf v) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    const __m512d wide = (__m512d)v;
    const __m256 y = _mm256_add_ps((__m256)_mm512_castpd512_pd256(wide), (__m256)_mm512_extractf64x4_pd(wide, 1));
#else
    const __m256 y = (__m256)v;
#endif
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
#endif
}

// exp(x) for x <= 0 within 2 ulp; 0 below -87. Cephes' range reduction and polynomial (Moshier 1989).
static inline vf exp_negative(vf x) {
    const vi underflow = x < -87.0f;
    x = select(underflow, splat(-87.0f), x);
    const vf n = madd(x, splat(1.44269504088896341f), splat(12582912.0f)) - 12582912.0f;  // rounds to nearest
    const vf r = madd(n, splat(2.12194440e-4f), madd(n, splat(-0.693359375f), x));
    vf p = splat(1.9875691500e-4f);
    p = madd(p, r, splat(1.3981999507e-3f));
    p = madd(p, r, splat(8.3334519073e-3f));
    p = madd(p, r, splat(4.1665795894e-2f));
    p = madd(p, r, splat(1.6666665459e-1f));
    p = madd(p, r, splat(5.0000001201e-1f));
    p = madd(p * r, r, r) + 1.0f;
    const vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    return select(underflow, vf{}, p * (vf)power);
}

// n halves to floats.
static inline void half_to_float(const uint16_t * src, float * dst, int n) {
    int i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(src + i))));
#endif
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    for (; i + 4 <= n; i += 4)
        vst1q_f32(dst + i, vcvt_f32_f16(vld1_f16((const __fp16 *)(src + i))));
#endif
    for (; i < n; i++) dst[i] = ggml_fp16_to_fp32(src[i]);
}

// n elements of a ggml type to floats.
static inline void to_float(ggml_type type, const char * src, float * dst, int n) {
    switch (type) {
        case GGML_TYPE_F32: memcpy(dst, src, n * sizeof(float)); break;
        case GGML_TYPE_F16: half_to_float((const uint16_t *)src, dst, n); break;
        default: ggml_get_type_traits(type)->to_float(src, dst, n);
    }
}

}  // namespace ggserve
