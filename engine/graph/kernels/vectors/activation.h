#pragma once

#include "simd.h"

namespace ggserve {
namespace {

constexpr int64_t CHUNK = 1024;  // elements of a unit of work, so that one row also keeps all threads busy

// 0.5 x (1 + tanh(z / 2)) = x sigmoid(z), with exp of what is negative only.
inline vf gelu_tanh(vf x) {
    const vf z = x * (x * x * 0.0713548162726f + 1.59576912160573f);  // 2 sqrt(2 / pi) (x + 0.044715 x^3)
    const vf e = exp_negative(select(z > 0.0f, -z, z));
    return x * select(z > 0.0f, splat(1.0f), e) / (e + 1.0f);
}

// x Phi(x); the tail of Phi after Abramowitz and Stegun 7.1.26 (absolute error below 1e-7).
inline vf gelu_erf(vf x) {
    const vf t = select(x > 0.0f, x, -x) * 0.70710678118655f;
    const vf k = 1.0f / (t * 0.3275911f + 1.0f);
    vf p = splat(1.061405429f);
    p = p * k - 1.453152027f;
    p = p * k + 1.421413741f;
    p = p * k - 0.284496736f;
    p = p * k + 0.254829592f;
    const vf tail = p * k * exp_negative(-t * t) * 0.5f;
    return x * select(x > 0.0f, 1.0f - tail, tail);
}

template <vf (*F)(vf)>
void apply(const float * x, const float * up, float * y, int64_t n) {
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        const vf v = F(load(x + i));
        store(y + i, up ? v * load(up + i) : v);
    }
    if (i < n) {
        float rest[W] = {};
        memcpy(rest, x + i, (n - i) * sizeof(float));
        const vf v = F(load(rest));
        for (int64_t j = 0; i + j < n; j++) y[i + j] = up ? v[j] * up[i + j] : v[j];
    }
}

const float * row_at(const ggml_tensor * t, int64_t row) {
    const int64_t i1 = row % t->ne[1], i2 = row / t->ne[1] % t->ne[2], i3 = row / t->ne[1] / t->ne[2];
    return (const float *)((const char *)t->data + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3]);
}

// dst = gelu(src0), or gelu(src0) * src1 where there is a src1. All F32 of one shape, dst contiguous, rows of
// the sources anywhere. userdata: a Gelu. ggml's own tanh form looks up a table of halves (errors of 1e-3),
// its erf form calls the scalar function.
void gelu_forward(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const ggml_tensor *x = dst->src[0], *up = dst->src[1];
    const auto f = (Gelu)(intptr_t)userdata == GELU_TANH ? apply<gelu_tanh> : apply<gelu_erf>;
    const int64_t n = dst->ne[0], chunks = (n + CHUNK - 1) / CHUNK, units = chunks * ggml_nrows(dst);
    for (int64_t unit = units * ith / nth; unit < units * (ith + 1) / nth; unit++) {
        const int64_t row = unit / chunks, begin = unit % chunks * CHUNK;
        f(row_at(x, row) + begin, up ? row_at(up, row) + begin : nullptr, (float *)row_at(dst, row) + begin,
          least(CHUNK, n - begin));
    }
}

}  // namespace
}  // namespace ggserve
