// Vectors of GGSERVE_WIDTH floats, with GCC's and Clang's vector extensions. The width, and not what the compiler is
// told of the processor (Clang does not define __AVX2__ in a target), decides how they are computed.
#pragma once

#include "headers.h"

namespace ggserve {
namespace {

constexpr int W = GGSERVE_WIDTH;

typedef float vf __attribute__((vector_size(W * sizeof(float))));
typedef int32_t vi __attribute__((vector_size(W * sizeof(int32_t))));

inline vf load(const float * p) { vf v; memcpy(&v, p, sizeof v); return v; }
inline void store(float * p, vf v) { memcpy(p, &v, sizeof v); }
inline vf splat(float x) { return x - vf{}; }
inline vf select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

template <class T> inline T least(T a, T b) { return b < a ? b : a; }
template <class T> inline T greatest(T a, T b) { return a < b ? b : a; }
inline void fill(float * p, size_t n, float x) {
    for (size_t i = 0; i < n; i++) p[i] = x;
}

inline vf maximum(vf a, vf b) { return select(a > b, a, b); }

// a b + c, rounded once where the target can.
inline vf madd(vf a, vf b, vf c) {
#if GGSERVE_WIDTH == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif GGSERVE_WIDTH == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

// Always by halves: v[i] + v[i + W / 2], and so on. What sums in another way, to the same bits, relies on it.
inline float sum(vf v) {
#if GGSERVE_WIDTH >= 8
#if GGSERVE_WIDTH == 16
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
inline vf exp_negative(vf x) {
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
inline void half_to_float(const uint16_t * src, float * dst, int n) {
    int i = 0;
#if GGSERVE_WIDTH == 16
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(src + i))));
#endif
#if GGSERVE_WIDTH >= 8
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
#elif defined(__aarch64__)
    for (; i + 4 <= n; i += 4)
        vst1q_f32(dst + i, vcvt_f32_f16(vld1_f16((const __fp16 *)(src + i))));
#endif
    for (; i < n; i++) dst[i] = ggml_fp16_to_fp32(src[i]);
}

// n elements of a ggml type to floats.
inline void to_float(ggml_type type, const char * src, float * dst, int n) {
    switch (type) {
        case GGML_TYPE_F32: memcpy(dst, src, n * sizeof(float)); break;
        case GGML_TYPE_F16: half_to_float((const uint16_t *)src, dst, n); break;
        default: ggml_get_type_traits(type)->to_float(src, dst, n);
    }
}

}  // namespace
}  // namespace ggserve
