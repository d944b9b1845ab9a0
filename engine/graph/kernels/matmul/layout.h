// The layout of packed weights and of quantized activations, the same for every instruction set.
//
// Everything here is constexpr or of internal linkage: files for different instruction sets include it, and the linker
// must not keep one set's code for all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace ggserve {

constexpr int BLOCK = 32;  // inputs that share a scale of the activations
constexpr int ROWS = 16;   // output rows of a group
constexpr int TILE = 64;   // activation rows that stay in the second-level cache while weights pass

// What the bits of a block of 32 inputs are; planes follow each other. Vector i holds inputs 4i … 4i + 3 of 16 rows.
//   NIBBLES  256 bytes: vector i in the low nibbles, vector i + 4 in the high nibbles
//   BYTES    512 bytes: Q8_0's signed bytes
//   PAIRS    128 bytes: two bits each of four vectors; alone (Q2_K, Q3_K), or above nibbles (Q6_K)
//   BITS     64 bytes: one bit each of eight vectors, above nibbles or pairs
enum class Low { NIBBLES, BYTES, PAIRS };
enum class High { NONE, BITS, PAIRS };

// How quants become weights; d and m are halves per row, b is the sum of a block's activations.
enum class Scale {
    BLOCK,  // d (q - offset)
    BRAIN,   // the same, with d in bfloat16
    AFFINE,  // d q + m
    K32,     // d s q, with a signed byte s of each block
    K4,      // d s q - dmin m, with bytes s and m of each block
    K16,     // d s (q - offset), with a signed byte s for each half of a block
    K16_MIN, // d s q - dmin m, with bytes s and m for each half of a block
};

// A packed group of 16 rows is its scales, rounded up to 64 bytes, then its quants.
struct Format {
    int per_super;     // blocks that share a header; 0: there is no kernel for this type
    int header;        // bytes for 16 rows: halves d, and m or dmin
    int scales;        // bytes for 16 rows, of each block
    int quants;        // bytes for 16 rows, of each block
    int source_bytes;  // of one super block of one row in ggml's layout
    Low low;
    High high;
    Scale scale;
    int offset;  // of the unsigned quants
};

constexpr Format format_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return {1, 32, 0, 256, 18, Low::NIBBLES, High::NONE, Scale::BLOCK, 8};
        case GGML_TYPE_Q4_1: return {1, 64, 0, 256, 20, Low::NIBBLES, High::NONE, Scale::AFFINE, 0};
        case GGML_TYPE_Q5_0: return {1, 32, 0, 320, 22, Low::NIBBLES, High::BITS, Scale::BLOCK, 16};
        case GGML_TYPE_Q5_1: return {1, 64, 0, 320, 24, Low::NIBBLES, High::BITS, Scale::AFFINE, 0};
        case GGML_TYPE_Q8_0: return {1, 32, 0, 512, 34, Low::BYTES, High::NONE, Scale::BLOCK, 0};
        case GGML_TYPE_IQ4_NL: return {1, 32, 0, 256, 18, Low::NIBBLES, High::NONE, Scale::BLOCK, 0};
        case GGML_TYPE_MXFP4: return {1, 32, 0, 256, 17, Low::NIBBLES, High::NONE, Scale::BRAIN, 12};
        case GGML_TYPE_IQ4_XS: return {8, 32, 16, 256, 136, Low::NIBBLES, High::NONE, Scale::K32, 0};
        case GGML_TYPE_Q2_K: return {8, 64, 64, 128, 84, Low::PAIRS, High::NONE, Scale::K16_MIN, 0};
        case GGML_TYPE_Q3_K: return {8, 32, 32, 192, 110, Low::PAIRS, High::BITS, Scale::K16, 4};
        case GGML_TYPE_Q4_K: return {8, 64, 32, 256, 144, Low::NIBBLES, High::NONE, Scale::K4, 0};
        case GGML_TYPE_Q5_K: return {8, 64, 32, 320, 176, Low::NIBBLES, High::BITS, Scale::K4, 0};
        case GGML_TYPE_Q6_K: return {8, 32, 32, 384, 210, Low::NIBBLES, High::PAIRS, Scale::K16, 32};
        default: return {};
    }
}

// Types whose quants are signed bytes, of the file or of a table: they use the whole range.
constexpr bool is_signed(ggml_type type) {
    return type == GGML_TYPE_Q8_0 || type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_IQ4_XS;
}

// The largest unsigned quant.
constexpr int largest(ggml_type type) {
    if (type == GGML_TYPE_MXFP4) return 24;
    const Format f = format_of(type);
    const int bits = f.low == Low::BYTES ? 8 : f.low == Low::NIBBLES ? 4 : 2;
    return (1 << (bits + (f.high == High::NONE ? 0 : f.high == High::BITS ? 1 : 2))) - 1;
}

constexpr size_t scales_bytes(const Format & f, int64_t n_blocks) {
    return (size_t)(n_blocks / f.per_super * (f.header + f.per_super * f.scales) + 63) / 64 * 64;
}

constexpr size_t group_bytes(const Format & f, int64_t n_blocks) {
    return scales_bytes(f, n_blocks) + n_blocks * f.quants;
}

// A block of one activation row. Rows go in tiles of up to TILE: [tile][block][row], without gaps.
struct Activations {
    int8_t q[BLOCK];
    float scale;
    float sum;          // scale times the sum of q
    int16_t halves[2];  // sums of the first and the last sixteen q
    int32_t unused;
};
static_assert(sizeof(Activations) == 48, "vectors are loaded from multiples of 16 bytes");

// Products of one group of 16 output rows with n <= TILE activation rows: out[row * stride + output].
using GroupKernel = void (*)(const uint8_t * group, int64_t n_blocks, const Activations * rows, int n, float * out,
                             size_t stride);

// What the byte products of an instruction set are, see kernel.h.
enum class Dot { MADDUBS, DPBUSD, SIGNED };

// The kernels for one instruction set.
struct KernelSet {
    const char * name;
    GroupKernel (*kernel_of)(ggml_type);  // nullptr: none
    // Whether products of this type take no longer than ggml's: docs/acceleration.md has the figures.
    bool (*is_faster)(ggml_type);
    void (*quantize)(const float * in, int64_t n_blocks, Activations * out, int64_t block_stride);
};

}  // namespace ggserve
