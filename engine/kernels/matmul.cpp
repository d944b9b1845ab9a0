// y = W x for weights in blocks of 32 (Q4_0, Q8_0), with the CPU's byte dot product (AVX512-VNNI).
//
// Sixteen output rows are interleaved four bytes at a time, so that one vector holds four inputs of each,
// and one instruction multiplies them with four inputs of one activation row. Activations are rounded
// to 8 bits per block of 32, as ggml does. The instruction wants one unsigned side: weights are stored with an
// offset (8 or 128), which the sum of the block's activations takes off again.
// Each row's arithmetic is the same however many rows there are: results do not depend on the batch.
#include "matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define GGSERVE_VNNI 1
#include <immintrin.h>
#endif

namespace ggserve {
namespace {

constexpr int BLOCK = 32, ROWS = 16;
constexpr int N_TILE = 128;  // activation rows that stay in the second-level cache while weights pass

// A packed group of 16 rows: per block 16 scales (halves), then per block the quants.
size_t quant_bytes(ggml_type type) { return type == GGML_TYPE_Q4_0 ? ROWS * BLOCK / 2 : ROWS * BLOCK; }
size_t scales_bytes(int64_t n_blocks) { return (n_blocks * ROWS * 2 + 63) / 64 * 64; }
size_t group_bytes(ggml_type type, int64_t n_blocks) { return scales_bytes(n_blocks) + n_blocks * quant_bytes(type); }

struct Activations {  // of one row
    const int8_t * q = nullptr;     // [n_blocks * 32]
    const float * scale = nullptr;  // [n_blocks]
    const int32_t * sum = nullptr;  // [n_blocks], of q

    Activations() = default;
    Activations(const char * row, int64_t n_blocks)
        : q((const int8_t *)row), scale((const float *)(row + n_blocks * BLOCK)),
          sum((const int32_t *)(row + n_blocks * (BLOCK + 4))) {}
};

}  // namespace

size_t activation_size(int64_t n_in) { return n_in / BLOCK * (BLOCK + 8); }

size_t packed_size(ggml_type type, int64_t n_in, int64_t n_out) {
    return (size_t)(n_out / ROWS) * group_bytes(type, n_in / BLOCK);
}

bool can_pack(ggml_type type, int64_t n_in, int64_t n_out) {
#ifdef GGSERVE_VNNI
    return (type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0) && n_in % BLOCK == 0 && n_out % ROWS == 0;
#else
    (void)type; (void)n_in; (void)n_out;
    return false;
#endif
}

void pack(ggml_type type, const void * src, int64_t n_in, int64_t n_out, void * dst) {
    const int64_t n_blocks = n_in / BLOCK;
    const size_t block_bytes = ggml_type_size(type), row_bytes = n_blocks * block_bytes;
    for (int64_t g = 0; g < n_out / ROWS; g++) {
        uint8_t * group = (uint8_t *)dst + g * group_bytes(type, n_blocks);
        uint8_t * quants = group + scales_bytes(n_blocks);
        memset(group, 0, scales_bytes(n_blocks));
        for (int r = 0; r < ROWS; r++) {
            const uint8_t * row = (const uint8_t *)src + (g * ROWS + r) * row_bytes;
            for (int64_t b = 0; b < n_blocks; b++, row += block_bytes) {
                memcpy(group + (b * ROWS + r) * 2, row, 2);
                uint8_t * out = quants + b * quant_bytes(type);
                if (type == GGML_TYPE_Q8_0) {
                    for (int i = 0; i < BLOCK; i++) out[(i / 4 * ROWS + r) * 4 + i % 4] = row[2 + i] ^ 0x80;
                } else {  // a byte of ggml's holds inputs i and i + 16, and so does one of ours
                    for (int i = 0; i < BLOCK / 2; i++) out[(i / 4 * ROWS + r) * 4 + i % 4] = row[2 + i];
                }
            }
        }
    }
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
        const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        const __m512i i0 = _mm512_cvtps_epi32(_mm512_mul_ps(lo, inverse));
        const __m512i i1 = _mm512_cvtps_epi32(_mm512_mul_ps(hi, inverse));
        _mm_storeu_si128((__m128i *)(row + b * BLOCK), _mm512_cvtsepi32_epi8(i0));
        _mm_storeu_si128((__m128i *)(row + b * BLOCK + 16), _mm512_cvtsepi32_epi8(i1));
        ((float *)(row + n_blocks * BLOCK))[b] = most / 127.0f;
        ((int32_t *)(row + n_blocks * (BLOCK + 4)))[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(i0, i1));
    }
#else
    (void)x; (void)ith; (void)nth;
#endif
}

#ifdef GGSERVE_VNNI
namespace {

// 16 outputs of N activation rows.
template <bool FOUR_BITS, int N>
inline void group_times_rows(const uint8_t * group, int64_t n_blocks, const Activations * rows, float * out,
                             size_t out_stride) {
    const uint8_t * quants = group + scales_bytes(n_blocks);
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512 acc[N];
    for (int n = 0; n < N; n++) acc[n] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++) {
        const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(group + b * ROWS * 2)));
        __m512i w[8];
        if (FOUR_BITS) {
            for (int i = 0; i < 4; i++) {
                const __m512i both = _mm512_loadu_si512(quants + (b * 4 + i) * 64);
                w[i] = _mm512_and_si512(both, nibble);
                w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            }
        } else {
            for (int i = 0; i < 8; i++) w[i] = _mm512_loadu_si512(quants + (b * 8 + i) * 64);
        }
        for (int n = 0; n < N; n++) {
            const int8_t * a = rows[n].q + b * BLOCK;
            __m512i dot = _mm512_set1_epi32(rows[n].sum[b] * (FOUR_BITS ? -8 : -128));
            for (int i = 0; i < 8; i++) {
                int32_t four;
                memcpy(&four, a + 4 * i, 4);
                dot = _mm512_dpbusd_epi32(dot, w[i], _mm512_set1_epi32(four));
            }
            const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(rows[n].scale[b]));
            acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc[n]);
        }
    }
    for (int n = 0; n < N; n++) _mm512_storeu_ps(out + n * out_stride, acc[n]);
}

template <bool FOUR_BITS>
void group_times_all(const uint8_t * group, int64_t n_blocks, const Activations * rows, int n, float * out,
                     size_t out_stride) {
    int i = 0;
    for (; i + 16 <= n; i += 16) group_times_rows<FOUR_BITS, 16>(group, n_blocks, rows + i, out + i * out_stride, out_stride);
    for (; i + 8 <= n; i += 8) group_times_rows<FOUR_BITS, 8>(group, n_blocks, rows + i, out + i * out_stride, out_stride);
    for (; i + 4 <= n; i += 4) group_times_rows<FOUR_BITS, 4>(group, n_blocks, rows + i, out + i * out_stride, out_stride);
    for (; i + 2 <= n; i += 2) group_times_rows<FOUR_BITS, 2>(group, n_blocks, rows + i, out + i * out_stride, out_stride);
    for (; i < n; i++) group_times_rows<FOUR_BITS, 1>(group, n_blocks, rows + i, out + i * out_stride, out_stride);
}

}  // namespace
#endif

void product_forward(ggml_tensor * dst, int, int nth, void * userdata) {
    Product & product = *(Product *)userdata;
#ifdef GGSERVE_VNNI
    const ggml_tensor *packed = dst->src[0], *x = dst->src[1];
    const int64_t n_blocks = x->ne[0] / (BLOCK + 8), n_groups = dst->ne[0] / ROWS;
    const int n_rows = (int)dst->ne[1], n_tiles = (n_rows + N_TILE - 1) / N_TILE;
    // Pieces of several groups: fewer of them when there are many threads to share them.
    const int64_t per_piece = std::clamp<int64_t>(n_groups / (8 * nth), 1, 16);
    const int64_t pieces = (n_groups + per_piece - 1) / per_piece;
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
            const uint8_t * group = (const uint8_t *)packed->data + g * group_bytes(product.type, n_blocks);
            float * out = (float *)((char *)dst->data + first * dst->nb[1]) + g * ROWS;
            const size_t stride = dst->nb[1] / sizeof(float);
            if (product.type == GGML_TYPE_Q4_0) group_times_all<true>(group, n_blocks, rows, n, out, stride);
            else group_times_all<false>(group, n_blocks, rows, n, out, stride);
        }
    }
#else
    (void)dst;
#endif
    product.work.leave(nth);
}

}  // namespace ggserve
