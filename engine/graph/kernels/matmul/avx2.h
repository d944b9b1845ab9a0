// Primitives on 256-bit vectors for kernel.h, and the rounding of activations. For files compiled for AVX2, FMA, F16C.
#pragma once

#include <immintrin.h>

#include "layout.h"

namespace ggserve {
namespace {

struct Avx2 {
    static constexpr int LANES = 8;
    static constexpr int REGISTER_ROWS = 1;
    using Bytes = __m256i;
    using Ints = __m256i;
    using Floats = __m256;
    using Pairs = __m256i;

    static Bytes load(const uint8_t * p) { return _mm256_loadu_si256((const __m256i *)p); }
    static Bytes bytes(int x) { return _mm256_set1_epi8((char)x); }
    static Bytes bit_and(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
    static Bytes bit_or(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
    static Bytes bit_xor(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
    template <int N> static Bytes shift_left(Bytes a) { return _mm256_slli_epi16(a, N); }
    template <int N> static Bytes shift_right(Bytes a) { return _mm256_srli_epi16(a, N); }
    static Bytes look_up(const int8_t * table, Bytes index) {
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)table)), index);
    }
    static Bytes absolute(Bytes a) { return _mm256_abs_epi8(a); }
    static Bytes with_sign(Bytes a, Bytes sign) { return _mm256_sign_epi8(a, sign); }
    static Bytes broadcast(const int8_t * four) {
        int32_t x;
        __builtin_memcpy(&x, four, 4);
        return _mm256_set1_epi32(x);
    }

    static Ints zero() { return _mm256_setzero_si256(); }
    static Ints maddubs(Bytes w, Bytes a) { return _mm256_maddubs_epi16(w, a); }
    static Ints add16(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
    static Ints widen(Ints pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
    static Ints widen_scaled(Ints pairs, Ints factor) { return _mm256_madd_epi16(pairs, factor); }
    static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
    static Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
    static Ints twice(const int8_t * p) {
        const __m256i x = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
        return _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(x, 16));
    }
    template <int FACTOR> static Pairs pairs(const int8_t * first, const int8_t * second) {
        const __m256i a = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)first));
        const __m256i b = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)second));
        const __m256i both = _mm256_or_si256(_mm256_and_si256(a, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(b, 16));
        return FACTOR == 1 ? both : _mm256_mullo_epi16(both, _mm256_set1_epi16(FACTOR));
    }
    static Ints times_pair(Pairs pair, const int16_t * two) { return _mm256_madd_epi16(pair, broadcast((const int8_t *)two)); }

    static Floats floats(float x) { return _mm256_set1_ps(x); }
    static Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static Floats halves(const uint8_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
    static Floats brains(const uint8_t * p) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
    }
    static Floats unsigned_bytes(const uint8_t * p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    }
    static Floats signed_bytes(const int8_t * p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    }
    static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static Floats fnma(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
    static Floats load_floats(const float * p) { return _mm256_loadu_ps(p); }
    static void store(float * p, Floats x) { _mm256_storeu_ps(p, x); }
};

inline int sum_of_lanes(__m256i x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

void quantize_avx2(const float * in, int64_t n_blocks, Activations * out, int64_t block_stride) {
    const __m256 absolute = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (int64_t b = 0; b < n_blocks; b++, in += BLOCK, out += block_stride) {
        const __m256 v0 = _mm256_loadu_ps(in), v1 = _mm256_loadu_ps(in + 8);
        const __m256 v2 = _mm256_loadu_ps(in + 16), v3 = _mm256_loadu_ps(in + 24);
        const __m256 m = _mm256_max_ps(_mm256_max_ps(_mm256_and_ps(v0, absolute), _mm256_and_ps(v1, absolute)),
                                       _mm256_max_ps(_mm256_and_ps(v2, absolute), _mm256_and_ps(v3, absolute)));
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        const float most = _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
        const __m256 nan = _mm256_or_ps(_mm256_cmp_ps(v0, v1, _CMP_UNORD_Q), _mm256_cmp_ps(v2, v3, _CMP_UNORD_Q));
        // Integers have no NaN: it goes into the scale, or it would come out as some finite number.
        const bool finite = !_mm256_movemask_ps(nan) && most < __builtin_inff();
        const float scale = finite ? most / 127.0f : __builtin_nanf("");
        __m256i i0{}, i1{}, i2{}, i3{};
        if (finite && most > 1e-36f) {
            const __m256 inverse = _mm256_set1_ps(127.0f / most);
            i0 = _mm256_cvtps_epi32(_mm256_mul_ps(v0, inverse));
            i1 = _mm256_cvtps_epi32(_mm256_mul_ps(v1, inverse));
            i2 = _mm256_cvtps_epi32(_mm256_mul_ps(v2, inverse));
            i3 = _mm256_cvtps_epi32(_mm256_mul_ps(v3, inverse));
        }
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((__m256i *)out->q, _mm256_permutevar8x32_epi32(packed, order));
        const int first = sum_of_lanes(_mm256_add_epi32(i0, i1)), second = sum_of_lanes(_mm256_add_epi32(i2, i3));
        out->scale = scale;
        out->sum = scale * (float)(first + second);
        out->halves[0] = (int16_t)first;
        out->halves[1] = (int16_t)second;
        out->unused = 0;
    }
}

}  // namespace
}  // namespace ggserve
