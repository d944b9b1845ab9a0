// From ggml's blocks to the layout of packed weights.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "layout.h"
#include "matmul.h"

namespace ggserve {
namespace {

constexpr int64_t READ_BYTES = 256 << 10;  // at a time: they stay in the second-level cache

uint32_t word(const uint8_t * p) { uint32_t w; memcpy(&w, p, 4); return w; }

void or_word(uint8_t * p, uint32_t w) { w |= word(p); memcpy(p, &w, 4); }

// The scale and the minimum of block j of a super block, 6 bits each of eight pairs in 12 bytes (Q4_K, Q5_K).
void scales_k4(const uint8_t * s, int j, uint8_t * scale, uint8_t * least) {
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *least = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

// Scale i of sixteen of 6 bits with an offset of 32 in 12 bytes (Q3_K).
uint8_t scale_q3_k(const uint8_t * s, int i) {
    const int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> 2 * (i / 4) & 3;
    return (uint8_t)((low | high << 4) - 32);
}

// Scale j of eight of 6 bits with an offset of 32: high bits in two bytes, then low bits in four (IQ4_XS).
uint8_t scale_iq4_xs(const uint8_t * s, int j) {
    const int high = (s[0] | s[1] << 8) >> 2 * j & 3, low = s[2 + j / 2] >> 4 * (j % 2) & 15;
    return (uint8_t)((low | high << 4) - 32);
}

// Half of 2^(e - 127) in bfloat16 (MXFP4); the two smallest are subnormal.
uint16_t brain_of_exponent(uint8_t e) { return e < 2 ? (uint16_t)(0x20 << e) : (uint16_t)((e - 1) << 7); }

// Row r of a block into the group's vectors, four inputs (a word) at a time. q: bytes with the block's low bits.
void pack_nibbles(const uint8_t * q, int shift, int r, uint8_t * out) {
    for (int i = 0; i < 4; i++) {  // inputs 4i… low, 16 + 4i… high
        const uint32_t low = word(q + 4 * i) >> shift & 0x0f0f0f0f, high = word(q + 16 + 4 * i) >> shift & 0x0f0f0f0f;
        or_word(out + i * 64 + r * 4, low | high << 4);
    }
}

// Sixteen bytes of nibbles, inputs i and i + 16: as in the group's vectors.
void copy_nibbles(const uint8_t * q, int r, uint8_t * out) {
    for (int i = 0; i < 4; i++) or_word(out + i * 64 + r * 4, word(q + 4 * i));
}

void pack_pairs(const uint8_t * q, int shift, int r, uint8_t * out) {
    for (int i = 0; i < 8; i++)  // two bits each of four vectors in a byte
        or_word(out + i / 4 * 64 + r * 4, (word(q + 4 * i) >> shift & 0x03030303) << 2 * (i % 4));
}

// Bit `at` of 32 bytes, one for each input.
void pack_bits_of_bytes(const uint8_t * q, int at, int r, uint8_t * out) {
    for (int i = 0; i < 8; i++) or_word(out + r * 4, (word(q + 4 * i) >> at & 0x01010101) << i);
}

// 32 bits, one for each input.
void pack_bits(uint32_t bits, int r, uint8_t * out) {
    for (int i = 0; i < BLOCK; i++) out[r * 4 + i % 4] |= (bits >> i & 1) << i / 4;
}

// Block j of a super block into row r. scales: of this block. out: its quants.
void pack_block(ggml_type type, const uint8_t * super, int j, int r, uint8_t * scales, uint8_t * out) {
    switch (type) {
        case GGML_TYPE_Q4_0: case GGML_TYPE_IQ4_NL: copy_nibbles(super + 2, r, out); break;
        case GGML_TYPE_MXFP4: copy_nibbles(super + 1, r, out); break;
        case GGML_TYPE_IQ4_XS:
            scales[r] = scale_iq4_xs(super + 2, j);
            copy_nibbles(super + 8 + 16 * j, r, out);
            break;
        case GGML_TYPE_Q4_1: copy_nibbles(super + 4, r, out); break;
        case GGML_TYPE_Q5_0:
            copy_nibbles(super + 6, r, out);
            pack_bits(word(super + 2), r, out + 256);
            break;
        case GGML_TYPE_Q5_1:
            copy_nibbles(super + 8, r, out);
            pack_bits(word(super + 4), r, out + 256);
            break;
        case GGML_TYPE_Q8_0:
            for (int i = 0; i < 8; i++) or_word(out + i * 64 + r * 4, word(super + 2 + 4 * i));
            break;
        case GGML_TYPE_Q2_K:
            for (int i = 0; i < 2; i++) {
                scales[i * ROWS + r] = super[2 * j + i] & 15;
                scales[(2 + i) * ROWS + r] = super[2 * j + i] >> 4;
            }
            pack_pairs(super + 16 + j / 4 * 32, 2 * (j % 4), r, out);
            break;
        case GGML_TYPE_Q3_K:
            for (int i = 0; i < 2; i++) scales[i * ROWS + r] = scale_q3_k(super + 96, 2 * j + i);
            pack_pairs(super + 32 + j / 4 * 32, 2 * (j % 4), r, out);
            pack_bits_of_bytes(super, j, r, out + 128);
            break;
        case GGML_TYPE_Q4_K:
            scales_k4(super + 4, j, scales + r, scales + ROWS + r);
            pack_nibbles(super + 16 + j / 2 * 32, 4 * (j % 2), r, out);
            break;
        case GGML_TYPE_Q5_K:
            scales_k4(super + 4, j, scales + r, scales + ROWS + r);
            pack_nibbles(super + 48 + j / 2 * 32, 4 * (j % 2), r, out);
            pack_bits_of_bytes(super + 16, j, r, out + 256);
            break;
        case GGML_TYPE_Q6_K: {  // halves of 128 inputs: quarters 0 and 2, 1 and 3 share the bytes of their low bits
            const int half = j / 4, quarter = j % 4;
            for (int i = 0; i < 2; i++) scales[i * ROWS + r] = super[192 + 2 * j + i];
            pack_nibbles(super + half * 64 + quarter % 2 * 32, 4 * (quarter / 2), r, out);
            pack_pairs(super + 128 + half * 32, 2 * quarter, r, out + 256);
            break;
        }
        default: break;
    }
}

// Where the halves d, and m or dmin after it, are in ggml's super block.
int header_at(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q2_K: return 80;
        case GGML_TYPE_Q3_K: return 108;
        case GGML_TYPE_Q6_K: return 208;
        default: return 0;
    }
}

void pack_groups(ggml_type type, const uint8_t * src, int64_t n_in, uint8_t * dst, int64_t begin, int64_t end) {
    const Format f = format_of(type);
    const int64_t n_supers = n_in / BLOCK / f.per_super, n_blocks = n_in / BLOCK;
    const size_t row_bytes = n_supers * f.source_bytes, size = group_bytes(f, n_blocks);
    for (int64_t g = begin; g < end; g++) {
        uint8_t * group = dst + g * size;
        memset(group, 0, size);
        for (int r = 0; r < ROWS; r++) {
            for (int64_t s = 0; s < n_supers; s++) {
                const uint8_t * super = src + (g * ROWS + r) * row_bytes + s * f.source_bytes;
                const uint8_t * halves = super + header_at(type);
                uint8_t * header = group + s * (f.header + f.per_super * f.scales);
                const uint16_t brain = brain_of_exponent(super[0]);
                memcpy(header + r * 2, type == GGML_TYPE_MXFP4 ? (const void *)&brain : halves, 2);
                if (f.header == 64) memcpy(header + 2 * ROWS + r * 2, halves + 2, 2);
                if (f.scale == Scale::AFFINE) header[2 * ROWS + r * 2 + 1] ^= 0x80;  // -m: the kernels subtract it
                for (int j = 0; j < f.per_super; j++)
                    pack_block(type, super, j, r, header + f.header + j * f.scales,
                               group + scales_bytes(f, n_blocks) + (s * f.per_super + j) * f.quants);
            }
        }
    }
}

// Calls work(begin, end) until n groups are done, `step` of them at a time.
template <class F>
void pack_in_threads(int64_t n, int64_t step, int n_threads, const F & work) {
    std::atomic<int64_t> next{0};
    const auto run = [&] {
        for (int64_t begin; (begin = next.fetch_add(step)) < n;) work(begin, std::min(begin + step, n));
    };
    std::vector<std::thread> others;
    try {
        for (int t = 1; t < std::min<int64_t>(n_threads, (n + step - 1) / step); t++) others.emplace_back(run);
    } catch (const std::exception &) {}  // no more threads to be had: those that are there do it
    run();
    for (std::thread & other : others) other.join();
}

}  // namespace

size_t packed_size(ggml_type type, int64_t n_in, int64_t n_out) {
    return (size_t)(n_out / ROWS) * group_bytes(format_of(type), n_in / BLOCK);
}

void pack(ggml_type type, const void * src, int64_t n_in, int64_t n_out, void * dst, int n_threads) {
    pack_in_threads(n_out / ROWS, 16, n_threads, [=](int64_t begin, int64_t end) {
        pack_groups(type, (const uint8_t *)src, n_in, (uint8_t *)dst, begin, end);
    });
}

int pack_file(ggml_type type, int fd, int64_t offset, int64_t n_in, int64_t n_out, void * dst, int n_threads) {
#if defined(_WIN32)  // where matrices are read first
    return ENOSYS;
#else
    const size_t source = ROWS * ggml_row_size(type, n_in), packed = group_bytes(format_of(type), n_in / BLOCK);
    std::atomic<int> error{0};
    pack_in_threads(n_out / ROWS, std::max<int64_t>(1, READ_BYTES / source), n_threads, [&](int64_t begin, int64_t end) {
        thread_local std::vector<uint8_t> rows;
        rows.resize((end - begin) * source);
        for (size_t done = 0; done < rows.size() && !error;) {
            const ssize_t n = pread(fd, rows.data() + done, rows.size() - done, offset + begin * source + done);
            if (n > 0) done += n;
            else if (n == 0) error = -1;
            else if (errno != EINTR) error = errno;
        }
        if (!error) pack_groups(type, rows.data(), n_in, (uint8_t *)dst + begin * packed, 0, end - begin);
    });
    return error;
#endif
}

}  // namespace ggserve
