// Products in plain C++, for every processor that GCC and Clang compile for.
#include <cmath>

#include "layout.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the target's are passed to inlined functions only
#endif

namespace ggserve {
namespace {

struct Set {
    static constexpr Dot DOT = Dot::SIGNED;
    static constexpr int LANES = 16;
    static constexpr int REGISTER_ROWS = 1;
    typedef uint8_t Bytes __attribute__((vector_size(64)));
    typedef uint16_t Words __attribute__((vector_size(64)));
    typedef int16_t Shorts __attribute__((vector_size(64)));
    typedef int32_t Ints __attribute__((vector_size(64)));
    typedef float Floats __attribute__((vector_size(64)));
    struct Pairs { Ints first, second; };

    static Bytes load(const uint8_t * p) { Bytes x; __builtin_memcpy(&x, p, 64); return x; }
    static Bytes bytes(int x) { return Bytes{} + (uint8_t)x; }
    static Bytes bit_and(Bytes a, Bytes b) { return a & b; }
    static Bytes bit_or(Bytes a, Bytes b) { return a | b; }
    static Bytes bit_xor(Bytes a, Bytes b) { return a ^ b; }
    template <int N> static Bytes shift_left(Bytes a) { return (Bytes)((Words)a << N); }
    template <int N> static Bytes shift_right(Bytes a) { return (Bytes)((Words)a >> N); }
    static Bytes look_up(const int8_t * table, Bytes index) {
        Bytes x;
        for (int i = 0; i < 64; i++) x[i] = (uint8_t)table[index[i]];
        return x;
    }
    static Ints zero() { return Ints{}; }
    // Of a word's four bytes, products of the even ones and of the odd ones; two of them fit into 16 bits.
    static Ints dot(Ints sum, Bytes w, const int8_t * a) {
        const int32_t even = (uint16_t)a[0] | (uint32_t)(uint16_t)a[2] << 16;
        const int32_t odd = (uint16_t)a[1] | (uint32_t)(uint16_t)a[3] << 16;
        const Shorts low = (Shorts)((Words)w << 8) >> 8, high = (Shorts)w >> 8;
        const Ints pairs = (Ints)(low * (Shorts)(Ints{} + even) + high * (Shorts)(Ints{} + odd));
        return sum + (pairs << 16 >> 16) + (pairs >> 16);
    }
    static Ints wide(const int8_t * p) {
        Ints x;
        for (int i = 0; i < LANES; i++) x[i] = p[i];
        return x;
    }
    template <int FACTOR> static Pairs pairs(const int8_t * first, const int8_t * second) {
        return {wide(first) * FACTOR, wide(second) * FACTOR};
    }
    static Ints times_pair(Pairs pair, const int16_t * two) { return pair.first * two[0] + pair.second * two[1]; }

    static Floats floats(float x) { return x - Floats{}; }
    static Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }
    static Floats halves(const uint8_t * p) {
        Floats x;
        for (int i = 0; i < LANES; i++) {
            ggml_fp16_t half;
            __builtin_memcpy(&half, p + 2 * i, 2);
            x[i] = ggml_fp16_to_fp32(half);
        }
        return x;
    }
    static Floats brains(const uint8_t * p) {
        Floats x;
        for (int i = 0; i < LANES; i++) {
            const uint32_t bits = (uint32_t)(p[2 * i] | p[2 * i + 1] << 8) << 16;
            float f;
            __builtin_memcpy(&f, &bits, 4);
            x[i] = f;
        }
        return x;
    }
    static Floats unsigned_bytes(const uint8_t * p) {
        Floats x;
        for (int i = 0; i < LANES; i++) x[i] = p[i];
        return x;
    }
    static Floats signed_bytes(const int8_t * p) { return to_floats(wide(p)); }
    static Floats mul(Floats a, Floats b) { return a * b; }
    static Floats fma(Floats a, Floats b, Floats c) { return c + a * b; }
    static Floats fnma(Floats a, Floats b, Floats c) { return c - a * b; }
    static Floats load_floats(const float * p) { Floats x; __builtin_memcpy(&x, p, 64); return x; }
    static void store(float * p, Floats x) { __builtin_memcpy(p, &x, 64); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

void quantize_portable(const float * in, int64_t n_blocks, Activations * out, int64_t block_stride) {
    for (int64_t b = 0; b < n_blocks; b++, in += BLOCK, out += block_stride) {
        float most = 0.0f;
        bool finite = true;
        for (int i = 0; i < BLOCK; i++) {
            const float size = std::fabs(in[i]);
            finite &= size < INFINITY;  // false for NaN
            most = size > most ? size : most;
        }
        // Integers have no NaN: it goes into the scale, or it would come out as some finite number.
        const float scale = finite ? most / 127.0f : NAN, inverse = finite && most > 1e-36f ? 127.0f / most : 0.0f;
        int sums[2] = {};
        for (int i = 0; i < BLOCK; i++) {
            const int q = inverse > 0 ? (int)std::lrint(in[i] * inverse) : 0;
            out->q[i] = (int8_t)q;
            sums[i / 16] += q;
        }
        out->scale = scale;
        out->sum = scale * (float)(sums[0] + sums[1]);
        out->halves[0] = (int16_t)sums[0];
        out->halves[1] = (int16_t)sums[1];
        out->unused = 0;
    }
}

// Than ggml's for the same processors, except for single rows of Q4_0, IQ4_NL, IQ4_XS and MXFP4.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet portable_kernels;
const KernelSet portable_kernels = {"portable", kernel_of, is_faster, quantize_portable};

}  // namespace ggserve
