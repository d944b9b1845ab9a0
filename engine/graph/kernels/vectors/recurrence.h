#pragma once

#include "simd.h"

namespace ggserve {
namespace {

constexpr int MAX_KERNEL = 8;
constexpr int MAX_KEY = 1024;  // elements of a key's head

const float * row_of(const ggml_tensor * t, int64_t row) {
    return (const float *)((const char *)t->data + row * t->nb[1]);
}

float * output_of(ggml_tensor * t, int64_t row) { return (float *)((char *)t->data + row * t->nb[1]); }

float * state_of(const ggml_tensor * states, int64_t slot, int64_t offset) {
    return (float *)((char *)states->data + slot * states->nb[1]) + offset;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
inline float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// The columns begin … end - 1 of rows that only pad the batch: those of the row before, which they repeat.
void repeat_rows(ggml_tensor * dst, const Sequence & seq, int64_t begin, int64_t end) {
    for (int64_t row = seq.row; row < seq.row + seq.n_new; row++)
        memcpy(output_of(dst, row) + begin, row_of(dst, row - 1) + begin, (end - begin) * sizeof(float));
}

// Where d does not fill whole vectors, the last one is loaded and stored by parts; what is missing counts as zero.
inline vf load_part(const float * p, int n) {
    vf v = {};
    memcpy(&v, p, n * sizeof(float));
    return v;
}

inline void store_part(float * p, vf v, int n) { memcpy(p, &v, n * sizeof(float)); }

inline float dot(const float * a, const float * b, int n) {
    vf total = {};
    int i = 0;
    for (; i + W <= n; i += W) total = madd(load(a + i), load(b + i), total);
    if (i < n) total = madd(load_part(a + i, n - i), load_part(b + i, n - i), total);
    return sum(total);
}

inline vf silu(vf x) {
    const vf e = exp_negative(select(x > 0.0f, -x, x));
    return x * select(x > 0.0f, splat(1.0f), e) / (e + 1.0f);
}

// h = decay h + add x for each element; returns the dot product with c. decay is one number or a vector of n.
template <class Decay>
inline float update(float * h, Decay decay, float add, const float * x, const float * c, int n) {
    vf total = {};
    int i = 0;
    for (; i + W <= n; i += W) {
        const vf v = madd(splat(add), load(x + i), load(h + i) * decay(i, W));
        store(h + i, v);
        total = madd(v, load(c + i), total);
    }
    if (i < n) {
        const vf v = madd(splat(add), load_part(x + i, n - i), load_part(h + i, n - i) * decay(i, n - i));
        store_part(h + i, v, n - i);
        total = madd(v, load_part(c + i, n - i), total);
    }
    return sum(total);
}

// y[t] = bias + sum_j w[j] x[t - kernel + 1 + j] in each channel.
// dst [channels, rows] F32; src0 x [channels, rows], rows may be strided; src1 w [kernel, channels];
// src2 the states [elements, slots]; src3, if there is one, bias [channels].
void convolution_forward(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & op = *(const Convolution *)userdata;
    const ggml_tensor *x = dst->src[0], *w = dst->src[1], *states = dst->src[2], *bias = dst->src[3];
    const int64_t n = dst->ne[0], kernel = w->ne[0];
    const int64_t blocks = (n + W - 1) / W;
    for (int64_t block = blocks * ith / nth; block < blocks * (ith + 1) / nth; block++) {
        const int64_t c = block * W;
        const int m = (int)least<int64_t>(W, n - c);
        vf weight[MAX_KERNEL] = {};
        for (int i = 0; i < m; i++) {
            const float * of_channel = (const float *)((const char *)w->data + (c + i) * w->nb[1]);
            for (int j = 0; j < kernel; j++) weight[j][i] = of_channel[j];
        }
        const vf b = bias ? load_part((const float *)bias->data + c, m) : vf{};
        for (int s = 0; s < op.batch->n_sequences; s++) {
            const Sequence & seq = op.batch->sequences[s];
            if (seq.slot < 0) {
                repeat_rows(dst, seq, c, c + m);
                continue;
            }
            float * state = state_of(states, seq.slot, op.offset) + c;  // [channels, kernel - 1]
            vf past[MAX_KERNEL] = {};
            for (int j = 0; j + 1 < kernel && seq.n_past; j++) past[j] = load_part(state + j * n, m);
            for (int64_t row = seq.row; row < seq.row + seq.n_new; row++) {
                past[kernel - 1] = load_part(row_of(x, row) + c, m);
                vf y = b;
                for (int j = 0; j < kernel; j++) y = madd(weight[j], past[j], y);
                store_part(output_of(dst, row) + c, op.silu ? silu(y) : y, m);
                for (int j = 0; j + 1 < kernel; j++) past[j] = past[j + 1];
            }
            for (int j = 0; j + 1 < kernel; j++) store_part(state + j * n, past[j], m);
        }
    }
}

void scan_forward(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & op = *(const Scan *)userdata;
    const ggml_tensor *x = dst->src[0], *dt = dst->src[1], *a = dst->src[2], *b = dst->src[3], *c = dst->src[4],
                      *d = dst->src[5], *states = dst->src[6], *bias = dst->src[7];
    const int64_t heads = dt->ne[0], head_dim = dst->ne[0] / heads;
    const bool whole = ggml_nelements(a) == heads;  // one decay for all of a head's state
    const int64_t n = op.d_state, groups = b->ne[0] / n;
    for (int64_t h = heads * ith / nth; h < heads * (ith + 1) / nth; h++) {
        const int64_t group = h / (heads / groups) * n, begin = h * head_dim;
        const float * decay_rate = (const float *)a->data + (whole ? h : h * n);
        const float skip = ((const float *)d->data)[h], shift = bias ? ((const float *)bias->data)[h] : 0.0f;
        for (int s = 0; s < op.batch->n_sequences; s++) {
            const Sequence & seq = op.batch->sequences[s];
            if (seq.slot < 0) {
                repeat_rows(dst, seq, begin, begin + head_dim);
                continue;
            }
            float * state = state_of(states, seq.slot, op.offset) + begin * n;
            if (!seq.n_past) fill(state, head_dim * n, 0.0f);
            for (int64_t row = seq.row; row < seq.row + seq.n_new; row++) {
                const float step = softplus(row_of(dt, row)[h] + shift);
                const float *in = row_of(x, row) + begin, *key = row_of(b, row) + group, *query = row_of(c, row) + group;
                float * out = output_of(dst, row) + begin;
                if (whole) {
                    const vf decay = splat(expf(step * decay_rate[0]));
                    for (int64_t p = 0; p < head_dim; p++)
                        out[p] = skip * in[p] + update(state + p * n, [&](int, int) { return decay; }, step * in[p],
                                                       key, query, n);
                } else {
                    const auto decay = [&](int i, int m) {
                        return exp_negative(splat(step) * load_part(decay_rate + i, m));
                    };
                    for (int64_t p = 0; p < head_dim; p++)
                        out[p] = skip * in[p] + update(state + p * n, decay, step * in[p], key, query, n);
                }
            }
        }
    }
}

void delta_forward(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & op = *(const Delta *)userdata;
    const ggml_tensor *qkv = dst->src[0], *a = dst->src[1], *b = dst->src[2], *rate = dst->src[3],
                      *bias = dst->src[4], *states = dst->src[5];
    const int64_t heads = a->ne[0], d_v = dst->ne[0] / heads, d = op.d, key_heads = op.n_key_heads;
    const float scale = 1.0f / sqrtf((float)d);
    float q[MAX_KEY], k[MAX_KEY];
    for (int64_t h = heads * ith / nth; h < heads * (ith + 1) / nth; h++) {
        const int64_t key_head = op.tiled ? h % key_heads : h / (heads / key_heads);
        const float shift = ((const float *)bias->data)[h], decay_rate = ((const float *)rate->data)[h];
        for (int s = 0; s < op.batch->n_sequences; s++) {
            const Sequence & seq = op.batch->sequences[s];
            if (seq.slot < 0) {
                repeat_rows(dst, seq, h * d_v, (h + 1) * d_v);
                continue;
            }
            float * state = state_of(states, seq.slot, op.offset) + h * d_v * d;
            if (!seq.n_past) fill(state, d_v * d, 0.0f);
            for (int64_t row = seq.row; row < seq.row + seq.n_new; row++) {
                const float * in = row_of(qkv, row);
                const float *q_in = in + key_head * d, *k_in = in + (key_heads + key_head) * d;
                const float * v = in + 2 * key_heads * d + h * d_v;
                const float q_scale = scale / sqrtf(dot(q_in, q_in, d) + 1e-6f);
                const float k_scale = 1.0f / sqrtf(dot(k_in, k_in, d) + 1e-6f);
                for (int64_t i = 0; i < d; i++) q[i] = q_in[i] * q_scale, k[i] = k_in[i] * k_scale;
                const float decay = expf(decay_rate * softplus(row_of(a, row)[h] + shift));
                const float beta = sigmoid(row_of(b, row)[h]);
                float * out = output_of(dst, row) + h * d_v;
                for (int64_t j = 0; j < d_v; j++) {
                    float * memory = state + j * d;
                    const float error = beta * (v[j] - decay * dot(memory, k, d));
                    const vf decays = splat(decay);
                    out[j] = update(memory, [&](int, int) { return decays; }, error, k, q, d);
                }
            }
        }
    }
}

}  // namespace
}  // namespace ggserve
