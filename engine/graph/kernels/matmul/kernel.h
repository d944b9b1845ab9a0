// Products of packed weights, for any instruction set. A file for one set defines `struct Set` (primitives on vectors
// of Set::LANES output rows), then includes this, then uses `kernel_of`. All is of internal linkage, see layout.h.
//
// The lanes of a vector are output rows; each holds four inputs as bytes, which are multiplied with four
// activations of one row that are broadcast. Eight vectors, decoded once, serve all activation rows of a tile.
// A row's arithmetic is the same however many rows there are: results do not depend on the batch.
//
// Set::DOT says what the byte products are:
//   MADDUBS  unsigned by signed bytes into pairs in 16 bits, which saturate: as many are added as cannot
//            overflow, and then widened. Signed weights: absolute values, and signs moved to the activations.
//   DPBUSD   unsigned by signed bytes into 32 bits. Signed weights are stored with an offset of 128.
//   SIGNED   signed bytes into 32 bits; unsigned weights below 128 are signed bytes too.
#pragma once

#include "layout.h"

namespace ggserve {
namespace {

// Functions that use primitives which not all sets have are templates of the set, so that the others need none.
using B = Set::Bytes;
using D = Set::Ints;
using F = Set::Floats;
constexpr int HALVES = ROWS / Set::LANES;
constexpr int PREFETCH = 16384;  // bytes ahead: with few rows memory is the limit, and the hardware looks no further than a page

template <ggml_type T>
struct Type {
    static constexpr Format f = format_of(T);
    static constexpr bool SIGN = is_signed(T) && Set::DOT != Dot::DPBUSD;
    static constexpr int OFFSET = is_signed(T) && Set::DOT == Dot::DPBUSD ? 128 : f.offset;
    // Sums of two products that fit into 16 bits.
    static constexpr int HEADROOM = is_signed(T) ? 1 : 32767 / (2 * 127 * largest(T)) >= 8 ? 8
                                  : 32767 / (2 * 127 * largest(T)) >= 4 ? 4 : 2;
};

// What the nibbles of IQ4_NL and IQ4_XS mean, and twice what those of MXFP4 do (E2M1), plus 12.
alignas(16) constexpr int8_t IQ4_NL[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
alignas(16) constexpr int8_t E2M1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

// The 32 inputs of a block, part `h` of its rows.
template <ggml_type T>
inline void decode(const uint8_t * q, int h, B * w) {
    constexpr Format f = format_of(T);
    q += h * Set::LANES * 4;
    if constexpr (f.low == Low::BYTES) {
        for (int i = 0; i < 8; i++) {
            w[i] = Set::load(q + i * 64);
            if constexpr (Set::DOT == Dot::DPBUSD) w[i] = Set::bit_xor(w[i], Set::bytes(0x80));
        }
    } else if constexpr (f.low == Low::NIBBLES) {
        for (int i = 0; i < 4; i++) {
            const B both = Set::load(q + i * 64);
            w[i] = Set::bit_and(both, Set::bytes(15));
            w[i + 4] = Set::bit_and(Set::template shift_right<4>(both), Set::bytes(15));
        }
    } else {
        for (int i = 0; i < 2; i++) {
            const B four = Set::load(q + i * 64);
            w[i * 4] = Set::bit_and(four, Set::bytes(3));
            w[i * 4 + 1] = Set::bit_and(Set::template shift_right<2>(four), Set::bytes(3));
            w[i * 4 + 2] = Set::bit_and(Set::template shift_right<4>(four), Set::bytes(3));
            w[i * 4 + 3] = Set::bit_and(Set::template shift_right<6>(four), Set::bytes(3));
        }
    }
    if constexpr (T == GGML_TYPE_MXFP4) {
        for (int i = 0; i < 8; i++) w[i] = Set::look_up(E2M1, w[i]);
    }
    if constexpr (T == GGML_TYPE_IQ4_NL || T == GGML_TYPE_IQ4_XS) {
        for (int i = 0; i < 8; i++) {
            w[i] = Set::look_up(IQ4_NL, w[i]);
            if constexpr (Set::DOT == Dot::DPBUSD) w[i] = Set::bit_xor(w[i], Set::bytes(0x80));
        }
    }
    constexpr int LOW_BYTES = f.low == Low::NIBBLES ? 256 : 128;
    if constexpr (f.high == High::BITS) {
        constexpr int AT = f.low == Low::NIBBLES ? 4 : 2;
        const B high = Set::bytes(1 << AT), bits = Set::load(q + LOW_BYTES);
        const auto put = [&](int i, B shifted) { w[i] = Set::bit_or(w[i], Set::bit_and(shifted, high)); };
        if constexpr (AT == 4) {
            put(0, Set::template shift_left<4>(bits)); put(1, Set::template shift_left<3>(bits));
            put(2, Set::template shift_left<2>(bits)); put(3, Set::template shift_left<1>(bits));
            put(4, bits); put(5, Set::template shift_right<1>(bits));
            put(6, Set::template shift_right<2>(bits)); put(7, Set::template shift_right<3>(bits));
        } else {
            put(0, Set::template shift_left<2>(bits)); put(1, Set::template shift_left<1>(bits));
            put(2, bits); put(3, Set::template shift_right<1>(bits));
            put(4, Set::template shift_right<2>(bits)); put(5, Set::template shift_right<3>(bits));
            put(6, Set::template shift_right<4>(bits)); put(7, Set::template shift_right<5>(bits));
        }
    }
    if constexpr (f.high == High::PAIRS) {
        const B high = Set::bytes(0x30);
        for (int i = 0; i < 2; i++) {
            const B bits = Set::load(q + LOW_BYTES + i * 64);
            B * four = w + i * 4;
            four[0] = Set::bit_or(four[0], Set::bit_and(Set::template shift_left<4>(bits), high));
            four[1] = Set::bit_or(four[1], Set::bit_and(Set::template shift_left<2>(bits), high));
            four[2] = Set::bit_or(four[2], Set::bit_and(bits, high));
            four[3] = Set::bit_or(four[3], Set::bit_and(Set::template shift_right<2>(bits), high));
        }
    }
}

// What else a block's product needs, for the rows of one part.
struct Factors {
    F scale, least;           // least: taken off once for each unit of the activations' sum
    typename Set::Pairs pair;  // K16: factors of the activations' sums of sixteen
    F scale0, scale1;         // K16 without MADDUBS: of the two halves
    D int0, int1;             // K16 with MADDUBS: the same as integers, in units of `scale`
};

template <ggml_type T, class S = Set>
inline Factors factors(const uint8_t * header, const uint8_t * scales, int h) {
    constexpr Format f = format_of(T);
    constexpr int OFFSET = Type<T>::OFFSET;
    const int lane = h * S::LANES;
    Factors x;
    const F d = f.scale == Scale::BRAIN ? S::brains(header + 2 * lane) : S::halves(header + 2 * lane);
    scales += lane;
    if constexpr (f.scale == Scale::BLOCK || f.scale == Scale::BRAIN || f.scale == Scale::K32) {
        x.scale = f.scale == Scale::K32 ? S::mul(d, S::signed_bytes((const int8_t *)scales)) : d;
        if constexpr (OFFSET != 0) x.least = S::mul(x.scale, S::floats((float)OFFSET));
    } else if constexpr (f.scale == Scale::AFFINE) {  // packed as -m
        x.scale = d;
        x.least = S::halves(header + 2 * ROWS + 2 * lane);
    } else if constexpr (f.scale == Scale::K4) {
        x.scale = S::mul(d, S::unsigned_bytes(scales));
        x.least = S::mul(S::halves(header + 2 * ROWS + 2 * lane), S::unsigned_bytes(scales + ROWS));
    } else {  // K16, K16_MIN
        const int8_t * s = (const int8_t *)scales;
        if constexpr (S::DOT == Dot::MADDUBS) {
            x.scale = d;
            x.int0 = S::twice(s);
            x.int1 = S::twice(s + ROWS);
        } else {
            x.scale0 = S::mul(d, S::signed_bytes(s));
            x.scale1 = S::mul(d, S::signed_bytes(s + ROWS));
        }
        if constexpr (f.scale == Scale::K16) {
            x.pair = S::template pairs<OFFSET>(s, s + ROWS);
            x.least = d;
        } else {
            x.pair = S::template pairs<1>(s + 2 * ROWS, s + 3 * ROWS);
            x.least = S::halves(header + 2 * ROWS + 2 * lane);
        }
    }
    return x;
}

// N (4 or 8) vectors of weights by the activations from `a` on.
template <ggml_type T, int N, class S = Set>
inline D dot(const B * w, const int8_t * a) {
    if constexpr (S::DOT == Dot::MADDUBS) {
        D sum{};
        if constexpr (Type<T>::SIGN) {
            for (int i = 0; i < N; i++) {
                const D pair = S::widen(S::maddubs(S::absolute(w[i]), S::with_sign(S::broadcast(a + 4 * i), w[i])));
                sum = i ? S::add(sum, pair) : pair;
            }
        } else {
            constexpr int STEP = Type<T>::HEADROOM < N ? Type<T>::HEADROOM : N;
            for (int i = 0; i < N; i += STEP) {
                D pairs = S::maddubs(w[i], S::broadcast(a + 4 * i));
                for (int j = i + 1; j < i + STEP; j++)
                    pairs = S::add16(pairs, S::maddubs(w[j], S::broadcast(a + 4 * j)));
                const D wide = S::widen(pairs);
                sum = i ? S::add(sum, wide) : wide;
            }
        }
        return sum;
    } else {
        D sum = S::zero();
        for (int i = 0; i < N; i++) sum = S::dot(sum, w[i], a + 4 * i);
        return sum;
    }
}

// Four vectors by sixteen activations, times integers of the same range in each lane's halves.
template <ggml_type T, class S = Set>
inline D scaled_dot(const B * w, const int8_t * a, D factor) {
    constexpr int STEP = Type<T>::HEADROOM < 4 ? Type<T>::HEADROOM : 4;
    D sum{};
    for (int i = 0; i < 4; i += STEP) {
        D pairs = S::maddubs(w[i], S::broadcast(a + 4 * i));
        for (int j = i + 1; j < i + STEP; j++) pairs = S::add16(pairs, S::maddubs(w[j], S::broadcast(a + 4 * j)));
        const D scaled = S::widen_scaled(pairs, factor);
        sum = i ? S::add(sum, scaled) : scaled;
    }
    return sum;
}

template <ggml_type T, class S = Set>
inline F accumulate(const B * w, const Factors & x, const Activations & a, F acc) {
    constexpr Format f = format_of(T);
    const F scale = S::floats(a.scale);
    if constexpr (f.scale == Scale::K16 || f.scale == Scale::K16_MIN) {
        const D least = S::times_pair(x.pair, a.halves);
        if constexpr (S::DOT == Dot::MADDUBS) {
            D sum = S::add(scaled_dot<T>(w, a.q, x.int0), scaled_dot<T>(w + 4, a.q + 16, x.int1));
            if constexpr (f.scale == Scale::K16) sum = S::sub(sum, least);
            acc = S::fma(S::to_floats(sum), S::mul(x.scale, scale), acc);
        } else {
            acc = S::fma(S::to_floats(dot<T, 4>(w, a.q)), S::mul(x.scale0, scale), acc);
            acc = S::fma(S::to_floats(dot<T, 4>(w + 4, a.q + 16)), S::mul(x.scale1, scale), acc);
        }
        if constexpr (f.scale == Scale::K16_MIN || S::DOT != Dot::MADDUBS)
            acc = S::fnma(S::to_floats(least), S::mul(x.least, scale), acc);
        return acc;
    } else {
        acc = S::fma(S::to_floats(dot<T, 8>(w, a.q)), S::mul(x.scale, scale), acc);
        if constexpr (f.scale == Scale::AFFINE || f.scale == Scale::K4 || Type<T>::OFFSET != 0)
            acc = S::fnma(x.least, S::floats(a.sum), acc);
        return acc;
    }
}

// Calls step(block, header, scales, quants) for each block of a group. What follows is fetched evenly on the way, scales
// included, into the second-level cache: twice the speed of fetching the quants into the first, which holds less.
template <ggml_type T, class Step>
inline void for_each_block(const uint8_t * group, int64_t n_blocks, Step step) {
    constexpr Format f = format_of(T);
    const uint8_t *header = group, *scales = group + f.header, *quants = group + scales_bytes(f, n_blocks);
    const size_t block = group_bytes(f, n_blocks) / n_blocks;
    const uint8_t *ahead = group + PREFETCH, *end = ahead;
    for (int64_t b = 0; b < n_blocks; b += f.per_super) {
        for (int j = 0; j < f.per_super; j++, quants += f.quants, scales += f.scales) {
            for (end += block; ahead < end; ahead += 64) __builtin_prefetch(ahead, 0, 2);
            step(b + j, header, scales, quants);
        }
        header = scales;
        scales += f.header;
    }
}

// N rows from `rows` on, whose sums stay in registers.
template <ggml_type T, int N>
void few_rows(const uint8_t * group, int64_t n_blocks, const Activations * rows, int tile, float * out, size_t stride) {
    F acc[HALVES * N];
    for (F & a : acc) a = Set::floats(0.0f);
    for_each_block<T>(group, n_blocks, [&](int64_t b, const uint8_t * header, const uint8_t * scales, const uint8_t * quants) {
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; h++) {
            B w[8];
            decode<T>(quants, h, w);
            const Factors x = factors<T>(header, scales, h);
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) acc[h * N + n] = accumulate<T>(w, x, rows[b * tile + n], acc[h * N + n]);
        }
    });
    for (int h = 0; h < HALVES; h++)
        for (int n = 0; n < N; n++) Set::store(out + n * stride + h * Set::LANES, acc[h * N + n]);
}

// All rows of a tile, with sums in the first-level cache.
template <ggml_type T>
void many_rows(const uint8_t * group, int64_t n_blocks, const Activations * rows, int n, float * out, size_t stride) {
    alignas(64) float acc[HALVES * TILE * Set::LANES];
    for (int i = 0; i < HALVES * n; i++) Set::store(acc + i * Set::LANES, Set::floats(0.0f));
    for_each_block<T>(group, n_blocks, [&](int64_t b, const uint8_t * header, const uint8_t * scales, const uint8_t * quants) {
        for (int h = 0; h < HALVES; h++) {
            B w[8];
            decode<T>(quants, h, w);
            const Factors x = factors<T>(header, scales, h);
            const Activations * a = rows + b * n;
            float * sum = acc + h * n * Set::LANES;
#pragma GCC unroll 1
            for (int i = 0; i < n; i++, sum += Set::LANES)
                Set::store(sum, accumulate<T>(w, x, a[i], Set::load_floats(sum)));
        }
    });
    for (int h = 0; h < HALVES; h++)
        for (int i = 0; i < n; i++)
            Set::store(out + i * stride + h * Set::LANES, Set::load_floats(acc + (h * n + i) * Set::LANES));
}

template <ggml_type T>
void group_times_rows(const uint8_t * group, int64_t n_blocks, const Activations * rows, int n, float * out, size_t stride) {
    int i = 0;
    if constexpr (Set::REGISTER_ROWS >= 16) {
        for (; i + 16 <= n; i += 16) few_rows<T, 16>(group, n_blocks, rows + i, n, out + i * stride, stride);
        for (; i + 8 <= n; i += 8) few_rows<T, 8>(group, n_blocks, rows + i, n, out + i * stride, stride);
        for (; i + 4 <= n; i += 4) few_rows<T, 4>(group, n_blocks, rows + i, n, out + i * stride, stride);
        for (; i + 2 <= n; i += 2) few_rows<T, 2>(group, n_blocks, rows + i, n, out + i * stride, stride);
        for (; i < n; i++) few_rows<T, 1>(group, n_blocks, rows + i, n, out + i * stride, stride);
    } else if (n == 1) {
        few_rows<T, 1>(group, n_blocks, rows, n, out, stride);
    } else {
        many_rows<T>(group, n_blocks, rows, n, out, stride);
    }
}

GroupKernel kernel_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return group_times_rows<GGML_TYPE_Q4_0>;
        case GGML_TYPE_Q4_1: return group_times_rows<GGML_TYPE_Q4_1>;
        case GGML_TYPE_Q5_0: return group_times_rows<GGML_TYPE_Q5_0>;
        case GGML_TYPE_Q5_1: return group_times_rows<GGML_TYPE_Q5_1>;
        case GGML_TYPE_Q8_0: return group_times_rows<GGML_TYPE_Q8_0>;
        case GGML_TYPE_IQ4_NL: return group_times_rows<GGML_TYPE_IQ4_NL>;
        case GGML_TYPE_IQ4_XS: return group_times_rows<GGML_TYPE_IQ4_XS>;
        case GGML_TYPE_MXFP4: return group_times_rows<GGML_TYPE_MXFP4>;
        case GGML_TYPE_Q2_K: return group_times_rows<GGML_TYPE_Q2_K>;
        case GGML_TYPE_Q3_K: return group_times_rows<GGML_TYPE_Q3_K>;
        case GGML_TYPE_Q4_K: return group_times_rows<GGML_TYPE_Q4_K>;
        case GGML_TYPE_Q5_K: return group_times_rows<GGML_TYPE_Q5_K>;
        case GGML_TYPE_Q6_K: return group_times_rows<GGML_TYPE_Q6_K>;
        default: return nullptr;
    }
}

}  // namespace
}  // namespace ggserve
