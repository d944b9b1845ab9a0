// Primitives on 512-bit vectors for kernel.h. For files compiled for AVX512 F, BW, VL, DQ.
#pragma once

#include <immintrin.h>

#include "layout.h"

namespace ggserve {
namespace {

struct Avx512 {
    static constexpr int LANES = 16;
    static constexpr int REGISTER_ROWS = 16;
    using Bytes = __m512i;
    using Ints = __m512i;
    using Floats = __m512;
    using Pairs = __m512i;

    static Bytes load(const uint8_t * p) { return _mm512_loadu_si512(p); }
    static Bytes bytes(int x) { return _mm512_set1_epi8((char)x); }
    static Bytes bit_and(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
    static Bytes bit_or(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
    static Bytes bit_xor(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
    template <int N> static Bytes shift_left(Bytes a) { return _mm512_slli_epi16(a, N); }
    template <int N> static Bytes shift_right(Bytes a) { return _mm512_srli_epi16(a, N); }
    static Bytes look_up(const int8_t * table, Bytes index) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)table)), index);
    }
    static Bytes absolute(Bytes a) { return _mm512_abs_epi8(a); }
    static Bytes with_sign(Bytes a, Bytes sign) {
        return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(sign), _mm512_setzero_si512(), a);
    }
    static Bytes broadcast(const int8_t * four) {
        int32_t x;
        __builtin_memcpy(&x, four, 4);
        return _mm512_set1_epi32(x);
    }

    static Ints zero() { return _mm512_setzero_si512(); }
    static Ints maddubs(Bytes w, Bytes a) { return _mm512_maddubs_epi16(w, a); }
    static Ints add16(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
    static Ints widen(Ints pairs) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)); }
    static Ints widen_scaled(Ints pairs, Ints factor) { return _mm512_madd_epi16(pairs, factor); }
    static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
    static Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
    static Ints wide(const int8_t * p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
    static Ints interleaved(Ints a, Ints b) { return _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16)); }
    static Ints twice(const int8_t * p) { return interleaved(wide(p), wide(p)); }
    template <int FACTOR> static Pairs pairs(const int8_t * first, const int8_t * second) {
        const __m512i both = interleaved(wide(first), wide(second));
        return FACTOR == 1 ? both : _mm512_mullo_epi16(both, _mm512_set1_epi16(FACTOR));
    }
    static Ints times_pair(Pairs pair, const int16_t * two) { return _mm512_madd_epi16(pair, broadcast((const int8_t *)two)); }

    static Floats floats(float x) { return _mm512_set1_ps(x); }
    static Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static Floats halves(const uint8_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
    static Floats brains(const uint8_t * p) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)p);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
    static Floats unsigned_bytes(const uint8_t * p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
    }
    static Floats signed_bytes(const int8_t * p) { return _mm512_cvtepi32_ps(wide(p)); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
    static Floats load_floats(const float * p) { return _mm512_loadu_ps(p); }
    static void store(float * p, Floats x) { _mm512_storeu_ps(p, x); }
};

}  // namespace
}  // namespace ggserve
