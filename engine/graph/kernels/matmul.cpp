// y = W x for quantized weights, with the CPU's byte dot product (AVX512-VNNI).
//
// Sixteen output rows are interleaved four bytes at a time, so that one vector holds four inputs of each,
// and one instruction multiplies them with four inputs of one activation row. Activations are rounded
// to 8 bits per block of 32. The instruction wants one unsigned side: where weights are signed they are stored
// with an offset, which the sum of the activations takes off again.
// Each row's arithmetic is the same however many rows there are: results do not depend on the batch.
#include "matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define GGSERVE_VNNI 1
#include <immintrin.h>
#endif

namespace ggserve {
namespace {

constexpr int BLOCK = 32, ROWS = 16;
constexpr int N_TILE = 128;  // activation rows that stay in the second-level cache while weights pass

// A packed group of 16 rows is its scales, then its quants. Per block of 32 inputs there are 256 bytes of
// nibbles (inputs 0-15 low, 16-31 high), 512 bytes for Q8_0, and then what other bits the type has.
struct Format {
    int per_super;     // blocks of 32 that share a header
    int header;        // bytes for 16 rows: halves d, and dmin
    int scales;        // bytes for 16 rows, of each block
    int quants;        // bytes for 16 rows, of each block
    int source_bytes;  // of one super block of one row in ggml's layout
};

Format format_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return {1, 32, 0, 256, 18};
        case GGML_TYPE_Q8_0: return {1, 32, 0, 512, 34};
        case GGML_TYPE_Q4_K: return {8, 64, 32, 256, 144};
        case GGML_TYPE_Q5_K: return {8, 64, 32, 320, 176};
        case GGML_TYPE_Q6_K: return {8, 32, 32, 384, 210};
        default: return {0, 0, 0, 0, 0};
    }
}

size_t scales_bytes(const Format & f, int64_t n_blocks) {
    return (size_t)(n_blocks / f.per_super * (f.header + f.per_super * f.scales) + 63) / 64 * 64;
}

size_t group_bytes(const Format & f, int64_t n_blocks) { return scales_bytes(f, n_blocks) + n_blocks * f.quants; }

uint32_t word(const uint8_t * p) { uint32_t w; memcpy(&w, p, 4); return w; }

void or_word(uint8_t * p, uint32_t w) { w |= word(p); memcpy(p, &w, 4); }

// Block j of a super block: the scales of row r, 6 bits each of eight pairs in 12 bytes (Q4_K, Q5_K).
void scales_k4(const uint8_t * s, int j, int r, uint8_t * out) {
    out[r] = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    out[ROWS + r] = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

// Row r of a block into the group's vectors, four inputs (a word) at a time. q: ggml's bytes of the block's low bits.
void pack_nibbles(const uint8_t * q, int shift, int r, uint8_t * out) {
    for (int i = 0; i < 4; i++) {  // inputs 4i… low, 16 + 4i… high
        const uint32_t low = word(q + 4 * i) >> shift & 0x0f0f0f0f, high = word(q + 16 + 4 * i) >> shift & 0x0f0f0f0f;
        or_word(out + i * 64 + r * 4, low | high << 4);
    }
}

void pack_block(ggml_type type, const uint8_t * super, int j, int r, uint8_t * scales, uint8_t * out) {
    switch (type) {
        case GGML_TYPE_Q4_0:  // ggml's bytes hold inputs i and i + 16, and so do ours
            for (int i = 0; i < 4; i++) or_word(out + i * 64 + r * 4, word(super + 2 + 4 * i));
            break;
        case GGML_TYPE_Q8_0:
            for (int i = 0; i < 8; i++) or_word(out + i * 64 + r * 4, word(super + 2 + 4 * i) ^ 0x80808080);
            break;
        case GGML_TYPE_Q4_K:
            scales_k4(super + 4, j, r, scales);
            pack_nibbles(super + 16 + j / 2 * 32, 4 * (j % 2), r, out);
            break;
        case GGML_TYPE_Q5_K:
            scales_k4(super + 4, j, r, scales);
            pack_nibbles(super + 48 + j / 2 * 32, 4 * (j % 2), r, out);
            for (int i = 0; i < 8; i++) {  // one bit per byte of eight vectors: a nibble of a vector's 64 bits per row
                const uint32_t bits = word(super + 16 + 4 * i) >> j & 0x01010101;
                out[256 + i * 8 + r / 2] |= ((bits | bits >> 7 | bits >> 14 | bits >> 21) & 15) << r % 2 * 4;
            }
            break;
        case GGML_TYPE_Q6_K: {  // halves of 128 inputs: quarters 0 and 2, 1 and 3 share the bytes of their low bits
            const int half = j / 4, quarter = j % 4;
            memcpy(scales + r, super + 192 + 2 * j, 1);
            memcpy(scales + ROWS + r, super + 192 + 2 * j + 1, 1);
            pack_nibbles(super + half * 64 + quarter % 2 * 32, 4 * (quarter / 2), r, out);
            for (int i = 0; i < 8; i++)  // two bits for each of four vectors in a byte
                or_word(out + 256 + i / 4 * 64 + r * 4,
                        (word(super + 128 + half * 32 + 4 * i) >> 2 * quarter & 0x03030303) << 2 * (i % 4));
            break;
        }
        default: break;
    }
}

struct Activations {  // of one row
    const int8_t * q = nullptr;     // [n_blocks * 32]
    const float * scale = nullptr;  // [n_blocks]
    const int32_t * sum = nullptr;  // [n_blocks * 2], of sixteen q each

    Activations() = default;
    Activations(const char * row, int64_t n_blocks)
        : q((const int8_t *)row), scale((const float *)(row + n_blocks * BLOCK)),
          sum((const int32_t *)(row + n_blocks * (BLOCK + 4))) {}
};
constexpr int ACTIVATION_BLOCK = BLOCK + 4 + 8;  // bytes

}  // namespace

size_t activation_size(int64_t n_in) { return n_in / BLOCK * ACTIVATION_BLOCK; }

size_t packed_size(ggml_type type, int64_t n_in, int64_t n_out) {
    return (size_t)(n_out / ROWS) * group_bytes(format_of(type), n_in / BLOCK);
}

bool can_pack(ggml_type type, int64_t n_in, int64_t n_out) {
#ifdef GGSERVE_VNNI
    const Format f = format_of(type);
    return f.per_super && n_in % (f.per_super * BLOCK) == 0 && n_out % ROWS == 0;
#else
    (void)type; (void)n_in; (void)n_out;
    return false;
#endif
}

static void pack_groups(ggml_type type, const uint8_t * src, int64_t n_in, uint8_t * dst, int64_t begin, int64_t end) {
    const Format f = format_of(type);
    const int64_t n_supers = n_in / BLOCK / f.per_super, n_blocks = n_in / BLOCK;
    const size_t row_bytes = n_supers * f.source_bytes, size = group_bytes(f, n_blocks);
    // Where the halves d and dmin are in ggml's super block: first, but for Q6_K, which has d at its end.
    const int d_at = type == GGML_TYPE_Q6_K ? 208 : 0;
    for (int64_t g = begin; g < end; g++) {
        uint8_t * group = dst + g * size;
        memset(group, 0, size);
        for (int r = 0; r < ROWS; r++) {
            for (int64_t s = 0; s < n_supers; s++) {
                const uint8_t * super = src + (g * ROWS + r) * row_bytes + s * f.source_bytes;
                uint8_t * header = group + s * (f.header + f.per_super * f.scales);
                memcpy(header + r * 2, super + d_at, 2);
                if (f.header == 64) memcpy(header + 32 + r * 2, super + 2, 2);
                for (int j = 0; j < f.per_super; j++)
                    pack_block(type, super, j, r, header + f.header + j * f.scales,
                               group + scales_bytes(f, n_blocks) + (s * f.per_super + j) * f.quants);
            }
        }
    }
}

void pack(ggml_type type, const void * src, int64_t n_in, int64_t n_out, void * dst, int n_threads) {
    const int64_t n_groups = n_out / ROWS;
    std::vector<std::thread> others;
    for (int t = 1; t < n_threads; t++) {
        const int64_t begin = n_groups * t / n_threads, end = n_groups * (t + 1) / n_threads;
        try {
            others.emplace_back(pack_groups, type, (const uint8_t *)src, n_in, (uint8_t *)dst, begin, end);
        } catch (const std::exception &) {  // no more threads to be had: this one does it
            pack_groups(type, (const uint8_t *)src, n_in, (uint8_t *)dst, begin, end);
        }
    }
    pack_groups(type, (const uint8_t *)src, n_in, (uint8_t *)dst, 0, n_groups / n_threads);
    for (std::thread & other : others) other.join();
}

void quantize_forward(ggml_tensor * dst, int ith, int nth, void *) {
    const ggml_tensor * x = dst->src[0];
#ifdef GGSERVE_VNNI
    const int64_t n_blocks = x->ne[0] / BLOCK, n = n_blocks * x->ne[1];
    for (int64_t i = n * ith / nth; i < n * (ith + 1) / nth; i++) {
        const int64_t r = i / n_blocks, b = i % n_blocks;
        const float * in = (const float *)((const char *)x->data + r * x->nb[1]) + b * BLOCK;
        char * row = (char *)dst->data + r * dst->nb[1];
        const __m512 lo = _mm512_loadu_ps(in), hi = _mm512_loadu_ps(in + 16);
        const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), _mm512_abs_ps(hi)));
        // Integers have no NaN: it goes into the scale, or it would come out as some finite number.
        const bool finite = !_mm512_cmp_ps_mask(lo, hi, _CMP_UNORD_Q) && most < INFINITY;
        const __m512 inverse = _mm512_set1_ps(most > 1e-36f ? 127.0f / most : 0.0f);
        const __m512i i0 = finite ? _mm512_cvtps_epi32(_mm512_mul_ps(lo, inverse)) : _mm512_setzero_si512();
        const __m512i i1 = finite ? _mm512_cvtps_epi32(_mm512_mul_ps(hi, inverse)) : _mm512_setzero_si512();
        _mm_storeu_si128((__m128i *)(row + b * BLOCK), _mm512_cvtsepi32_epi8(i0));
        _mm_storeu_si128((__m128i *)(row + b * BLOCK + 16), _mm512_cvtsepi32_epi8(i1));
        ((float *)(row + n_blocks * BLOCK))[b] = finite ? most / 127.0f : NAN;
        int32_t * sum = (int32_t *)(row + n_blocks * (BLOCK + 4)) + 2 * b;
        sum[0] = _mm512_reduce_add_epi32(i0);
        sum[1] = _mm512_reduce_add_epi32(i1);
    }
#else
    (void)x; (void)ith; (void)nth;
#endif
}

#ifdef GGSERVE_VNNI
namespace {

inline __m512 halves(const uint8_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
inline __m512 bytes(const uint8_t * p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
inline __m512 signed_bytes(const uint8_t * p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

// The 32 inputs of a block of 16 rows as unsigned bytes, four inputs a vector.
template <ggml_type T>
inline void weights_of(const uint8_t * q, __m512i * w) {
    if (T == GGML_TYPE_Q8_0) {
        for (int i = 0; i < 8; i++) w[i] = _mm512_loadu_si512(q + i * 64);
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < 4; i++) {
        const __m512i both = _mm512_loadu_si512(q + i * 64);
        w[i] = _mm512_and_si512(both, nibble);
        w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
    if (T == GGML_TYPE_Q5_K) {
        const __m512i high = _mm512_set1_epi8(16);
        for (int i = 0; i < 8; i++) {
            uint64_t bits;
            memcpy(&bits, q + 256 + i * 8, 8);
            w[i] = _mm512_or_si512(w[i], _mm512_maskz_mov_epi8(bits, high));
        }
    }
    if (T == GGML_TYPE_Q6_K) {
        const __m512i high = _mm512_set1_epi8(0x30);
        for (int i = 0; i < 2; i++) {
            const __m512i bits = _mm512_loadu_si512(q + 256 + i * 64);
            __m512i * four = w + i * 4;
            four[0] = _mm512_or_si512(four[0], _mm512_and_si512(_mm512_slli_epi16(bits, 4), high));
            four[1] = _mm512_or_si512(four[1], _mm512_and_si512(_mm512_slli_epi16(bits, 2), high));
            four[2] = _mm512_or_si512(four[2], _mm512_and_si512(bits, high));
            four[3] = _mm512_or_si512(four[3], _mm512_and_si512(_mm512_srli_epi16(bits, 2), high));
        }
    }
}

template <int N>
inline __m512i dot(__m512i start, const __m512i * w, const int8_t * a) {
    for (int i = 0; i < N; i++) {
        int32_t four;
        memcpy(&four, a + 4 * i, 4);
        start = _mm512_dpbusd_epi32(start, w[i], _mm512_set1_epi32(four));
    }
    return start;
}

// 16 outputs of N activation rows.
template <ggml_type T, int N>
inline void group_times_rows(const uint8_t * group, int64_t n_blocks, const Activations * rows, float * out,
                             size_t out_stride) {
    constexpr bool SUPER = T == GGML_TYPE_Q4_K || T == GGML_TYPE_Q5_K || T == GGML_TYPE_Q6_K;
    constexpr int OFFSET = T == GGML_TYPE_Q4_0 ? 8 : T == GGML_TYPE_Q8_0 ? 128 : T == GGML_TYPE_Q6_K ? 32 : 0;
    const Format f = format_of(T);
    const uint8_t * quants = group + scales_bytes(f, n_blocks);
    const uint8_t * scales = group;
    __m512 acc[N], d{}, dmin{};
    for (int n = 0; n < N; n++) acc[n] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, quants += f.quants) {
        if (!SUPER || b % 8 == 0) {
            d = halves(scales);
            if (f.header == 64) dmin = halves(scales + 32);
            scales += f.header;
        }
        __m512i w[8];
        weights_of<T>(quants, w);
        if (T == GGML_TYPE_Q6_K) {
            const __m512 s0 = _mm512_mul_ps(d, signed_bytes(scales)), s1 = _mm512_mul_ps(d, signed_bytes(scales + ROWS));
            for (int n = 0; n < N; n++) {
                const int8_t * a = rows[n].q + b * BLOCK;
                const __m512 scale = _mm512_set1_ps(rows[n].scale[b]);
                const __m512i dot0 = dot<4>(_mm512_set1_epi32(-OFFSET * rows[n].sum[2 * b]), w, a);
                const __m512i dot1 = dot<4>(_mm512_set1_epi32(-OFFSET * rows[n].sum[2 * b + 1]), w + 4, a + 16);
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot0), _mm512_mul_ps(s0, scale), acc[n]);
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot1), _mm512_mul_ps(s1, scale), acc[n]);
            }
        } else if (SUPER) {
            const __m512 s = _mm512_mul_ps(d, bytes(scales)), least = _mm512_mul_ps(dmin, bytes(scales + ROWS));
            for (int n = 0; n < N; n++) {
                const __m512 scale = _mm512_set1_ps(rows[n].scale[b]);
                const __m512i all = dot<8>(_mm512_setzero_si512(), w, rows[n].q + b * BLOCK);
                const float sum = (float)(rows[n].sum[2 * b] + rows[n].sum[2 * b + 1]) * rows[n].scale[b];
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), _mm512_mul_ps(s, scale), acc[n]);
                acc[n] = _mm512_fnmadd_ps(least, _mm512_set1_ps(sum), acc[n]);
            }
        } else {
            for (int n = 0; n < N; n++) {
                const int32_t sum = rows[n].sum[2 * b] + rows[n].sum[2 * b + 1];
                const __m512i all = dot<8>(_mm512_set1_epi32(-OFFSET * sum), w, rows[n].q + b * BLOCK);
                const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(rows[n].scale[b]));
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), scale, acc[n]);
            }
        }
        scales += f.scales;
    }
    for (int n = 0; n < N; n++) _mm512_storeu_ps(out + n * out_stride, acc[n]);
}

template <ggml_type T>
void group_times_all(const uint8_t * group, int64_t n_blocks, const Activations * rows, int n, float * out,
                     size_t stride) {
    int i = 0;
    for (; i + 16 <= n; i += 16) group_times_rows<T, 16>(group, n_blocks, rows + i, out + i * stride, stride);
    for (; i + 8 <= n; i += 8) group_times_rows<T, 8>(group, n_blocks, rows + i, out + i * stride, stride);
    for (; i + 4 <= n; i += 4) group_times_rows<T, 4>(group, n_blocks, rows + i, out + i * stride, stride);
    for (; i + 2 <= n; i += 2) group_times_rows<T, 2>(group, n_blocks, rows + i, out + i * stride, stride);
    for (; i < n; i++) group_times_rows<T, 1>(group, n_blocks, rows + i, out + i * stride, stride);
}

using GroupTimesAll = void (*)(const uint8_t *, int64_t, const Activations *, int, float *, size_t);

GroupTimesAll kernel_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return group_times_all<GGML_TYPE_Q4_0>;
        case GGML_TYPE_Q8_0: return group_times_all<GGML_TYPE_Q8_0>;
        case GGML_TYPE_Q4_K: return group_times_all<GGML_TYPE_Q4_K>;
        case GGML_TYPE_Q5_K: return group_times_all<GGML_TYPE_Q5_K>;
        default: return group_times_all<GGML_TYPE_Q6_K>;
    }
}

}  // namespace
#endif

void product_forward(ggml_tensor * dst, int, int nth, void * userdata) {
    Product & product = *(Product *)userdata;
#ifdef GGSERVE_VNNI
    const ggml_tensor *packed = dst->src[0], *x = dst->src[1];
    const int64_t n_blocks = x->ne[0] / ACTIVATION_BLOCK, n_groups = dst->ne[0] / ROWS;
    const int n_rows = (int)dst->ne[1], n_tiles = (n_rows + N_TILE - 1) / N_TILE;
    // Pieces of several groups: fewer of them when there are many threads to share them.
    const int64_t per_piece = std::clamp<int64_t>(n_groups / (8 * nth), 1, 16);
    const int64_t pieces = (n_groups + per_piece - 1) / per_piece;
    const size_t bytes_per_group = group_bytes(format_of(product.type), n_blocks);
    const GroupTimesAll kernel = kernel_of(product.type);
    Activations rows[N_TILE];
    int filled = -1;
    for (int64_t piece = product.work.take(); piece < pieces * n_tiles; piece = product.work.take()) {
        const int tile = (int)(piece / pieces), first = tile * N_TILE, n = std::min(N_TILE, n_rows - first);
        if (filled != tile) {
            for (int i = 0; i < n; i++)
                rows[i] = Activations((const char *)x->data + (first + i) * x->nb[1], n_blocks);
            filled = tile;
        }
        const int64_t begin = piece % pieces * per_piece, end = std::min(begin + per_piece, n_groups);
        for (int64_t g = begin; g < end; g++) {
            float * out = (float *)((char *)dst->data + first * dst->nb[1]) + g * ROWS;
            kernel((const uint8_t *)packed->data + g * bytes_per_group, n_blocks, rows, n, out,
                   dst->nb[1] / sizeof(float));
        }
    }
#else
    (void)dst;
#endif
    product.work.leave(nth);
}

}  // namespace ggserve
