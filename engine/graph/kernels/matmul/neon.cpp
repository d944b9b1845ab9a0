// Products with NEON's byte dot product (Armv8.2 DotProd: Cortex-A76 2018, Apple M1).
#include "../cpu.h"
#include "layout.h"

#if defined(GGSERVE_DOTPROD)
#include "../target.h"

#if defined(__clang__)
GGSERVE_TARGET("dotprod")
#else
GGSERVE_TARGET("arch=armv8.2-a+dotprod")
#endif

namespace ggserve {
namespace {

struct Set {
    static constexpr Dot DOT = Dot::SIGNED;
    static constexpr int LANES = 8;
    static constexpr int REGISTER_ROWS = 1;
    struct Bytes { uint8x16_t a, b; };
    struct Ints { int32x4_t a, b; };
    struct Floats { float32x4_t a, b; };
    struct Pairs { int16x8_t first, second; };

    static Bytes load(const uint8_t * p) { return {vld1q_u8(p), vld1q_u8(p + 16)}; }
    static Bytes bytes(int x) { return {vdupq_n_u8((uint8_t)x), vdupq_n_u8((uint8_t)x)}; }
    static Bytes bit_and(Bytes x, Bytes y) { return {vandq_u8(x.a, y.a), vandq_u8(x.b, y.b)}; }
    static Bytes bit_or(Bytes x, Bytes y) { return {vorrq_u8(x.a, y.a), vorrq_u8(x.b, y.b)}; }
    static Bytes bit_xor(Bytes x, Bytes y) { return {veorq_u8(x.a, y.a), veorq_u8(x.b, y.b)}; }
    template <int N> static Bytes shift_left(Bytes x) { return {vshlq_n_u8(x.a, N), vshlq_n_u8(x.b, N)}; }
    template <int N> static Bytes shift_right(Bytes x) { return {vshrq_n_u8(x.a, N), vshrq_n_u8(x.b, N)}; }
    static Bytes look_up(const int8_t * table, Bytes index) {
        const uint8x16_t values = vld1q_u8((const uint8_t *)table);
        return {vqtbl1q_u8(values, index.a), vqtbl1q_u8(values, index.b)};
    }

    static Ints zero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
    static Ints dot(Ints sum, Bytes w, const int8_t * a) {
        int32_t four;
        __builtin_memcpy(&four, a, 4);
        const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
        return {vdotq_s32(sum.a, vreinterpretq_s8_u8(w.a), all), vdotq_s32(sum.b, vreinterpretq_s8_u8(w.b), all)};
    }
    template <int FACTOR> static Pairs pairs(const int8_t * first, const int8_t * second) {
        return {vmulq_n_s16(vmovl_s8(vld1_s8(first)), FACTOR), vmulq_n_s16(vmovl_s8(vld1_s8(second)), FACTOR)};
    }
    static Ints times_pair(Pairs pair, const int16_t * two) {
        const int32x4_t a = vmull_n_s16(vget_low_s16(pair.first), two[0]);
        const int32x4_t b = vmull_n_s16(vget_high_s16(pair.first), two[0]);
        return {vmlal_n_s16(a, vget_low_s16(pair.second), two[1]), vmlal_n_s16(b, vget_high_s16(pair.second), two[1])};
    }

    static Floats floats(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
    static Floats to_floats(Ints x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b)}; }
    static Floats halves(const uint8_t * p) {
        const float16x8_t x = vreinterpretq_f16_u8(vld1q_u8(p));
        return {vcvt_f32_f16(vget_low_f16(x)), vcvt_f32_f16(vget_high_f16(x))};
    }
    static Floats brains(const uint8_t * p) {
        const uint16x8_t x = vreinterpretq_u16_u8(vld1q_u8(p));
        return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)), vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(x), 16))};
    }
    static Floats unsigned_bytes(const uint8_t * p) {
        const uint16x8_t x = vmovl_u8(vld1_u8(p));
        return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(x))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(x)))};
    }
    static Floats signed_bytes(const int8_t * p) {
        const int16x8_t x = vmovl_s8(vld1_s8(p));
        return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(x)))};
    }
    static Floats mul(Floats x, Floats y) { return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b)}; }
    static Floats fma(Floats x, Floats y, Floats z) { return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)}; }
    static Floats fnma(Floats x, Floats y, Floats z) { return {vfmsq_f32(z.a, x.a, y.a), vfmsq_f32(z.b, x.b, y.b)}; }
    static Floats load_floats(const float * p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
    static void store(float * p, Floats x) { vst1q_f32(p, x.a); vst1q_f32(p + 4, x.b); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

void quantize_portable(const float * in, int64_t n_blocks, Activations * out, int64_t block_stride);

// Not measured yet, and ggml repacks most types for these processors.
static bool is_faster(ggml_type) { return false; }

extern const KernelSet neon_kernels;
const KernelSet neon_kernels = {"neon", kernel_of, is_faster, quantize_portable};

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
