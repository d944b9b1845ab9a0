// Layers that carry a state from token to token, as ggml custom operations for the CPU: vectors/recurrence.h.
//
// Each operation takes the rows of all sequences of the batch, and reads and writes the states of their slots.
// Tokens of a sequence are computed one after the other, by one thread for each channel or head: a row is the
// same to the bit alone, in company, and however its prompt is divided.
#pragma once

#include <cstdint>

#include "attention.h"

namespace ggserve {

// `offset`: where the operation's part of a slot begins, in elements.
struct Convolution {
    const Batch * batch;
    int64_t offset;
    bool silu;  // of the sum
};

// The selective scan of Mamba (Gu 2023, arXiv 2312.00752) and Mamba 2 (Dao 2024, arXiv 2405.21060):
// h = exp(dt A) h + dt B x; y = C h + D x, where dt = softplus(dt + bias).
// dst y [head_dim * heads, rows] F32; src0 x, the same; src1 dt [heads, rows]; src2 A [d_state | 1, heads];
// src3 B and src4 C [d_state * groups, rows]; src5 D [heads]; src6 the states; src7, if there is one, bias [heads].
struct Scan {
    const Batch * batch;
    int64_t offset;
    int32_t d_state;
};

// The gated delta rule (Yang 2024, arXiv 2412.06464), with q and k scaled to a length of 1, q by 1 / sqrt(d) besides:
// S = exp(g) S; S += k (beta (v - k S)); y = q S, where g = A softplus(a + bias), beta = sigmoid(b).
// dst y [d_v * heads, rows] F32; src0 the rows of q [d * key heads], k [d * key heads], v [d_v * heads];
// src1 a and src2 b [heads, rows]; src3 A and src4 bias [heads]; src5 the states.
struct Delta {
    const Batch * batch;
    int64_t offset;
    int32_t d, n_key_heads;
    bool tiled;  // head h uses key head h % n_key_heads, else h / (heads / n_key_heads)
};

}  // namespace ggserve
