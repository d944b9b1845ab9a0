// Shared by all kernels. A tensor is a buffer and a ulong16: offset, ne0-3, nb0-3 (bytes), the rest unused.
// No extension is needed: halves are read and written by vload_half and vstore_half, which are core.

#define OFFSET(v) (v).s0
#define NE0(v) (v).s1
#define NE1(v) (v).s2
#define NE2(v) (v).s3
#define NE3(v) (v).s4
#define NB0(v) (v).s5
#define NB1(v) (v).s6
#define NB2(v) (v).s7
#define NB3(v) (v).s8
#define AT(base, v, i0, i1, i2, i3)                                                                                   \
    ((base) + OFFSET(v) + (i0) * NB0(v) + (i1) * NB1(v) + (i2) * NB2(v) + (i3) * NB3(v))

// Element i of a tensor, counted in ggml's order, as four indices.
#define INDICES(i, v)                                                                                                 \
    const ulong i0 = (i) % NE0(v), i1 = (i) / NE0(v) % NE1(v), i2 = (i) / (NE0(v) * NE1(v)) % NE2(v),                \
                i3 = (i) / (NE0(v) * NE1(v) * NE2(v))
#define COUNT(v) (NE0(v) * NE1(v) * NE2(v) * NE3(v))

#define LOCAL 64  // work items per group; the same as in device.h

typedef global uchar * bytes;
typedef global const uchar * const_bytes;

float load_f32(const_bytes p) { return *(global const float *) p; }
float load_f16(const_bytes p) { return vload_half(0, (global const half *) p); }
float load_bf16(const_bytes p) { return as_float((uint) *(global const ushort *) p << 16); }
void store_f32(bytes p, float x) { *(global float *) p = x; }
void store_f16(bytes p, float x) { vstore_half_rte(x, 0, (global half *) p); }
void store_bf16(bytes p, float x) {
    const uint u = as_uint(x);
    // Round to nearest even; NaN stays NaN.
    *(global ushort *) p = isnan(x) ? (u >> 16) | 64 : (u + (0x7fff + (u >> 16 & 1))) >> 16;
}

// ggml's type numbers.
#define F32 0
#define F16 1
#define I32 26
#define BF16 30

float load(const_bytes p, int type) {
    return type == F32 ? load_f32(p) : type == F16 ? load_f16(p) : type == BF16 ? load_bf16(p) : *(global const int *) p;
}
void store(bytes p, int type, float x) {
    if (type == F32) store_f32(p, x);
    else if (type == F16) store_f16(p, x);
    else if (type == BF16) store_bf16(p, x);
    else *(global int *) p = (int) x;
}

// Sum or maximum over a work group, returned to all of its items.
float group_sum(float x, local float * scratch) {
    const uint i = get_local_id(0);
    scratch[i] = x;
    for (uint n = LOCAL / 2; n > 0; n /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (i < n) scratch[i] += scratch[i + n];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const float all = scratch[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return all;
}
float group_max(float x, local float * scratch) {
    const uint i = get_local_id(0);
    scratch[i] = x;
    for (uint n = LOCAL / 2; n > 0; n /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (i < n) scratch[i] = fmax(scratch[i], scratch[i + n]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const float all = scratch[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return all;
}

// ALiBi's slope of a head (Press 2021, arXiv 2108.12409); m0, m1: 2^(-max_bias / n), 2^(-max_bias / 2n).
float slope(uint head, uint n_log2, float m0, float m1) {
    return head < n_log2 ? pown(m0, head + 1) : pown(m1, 2 * (head - n_log2) + 1);
}
