// Grouped-query attention over a paged KV cache, as a ggml custom operation for the CPU: vectors/attention.h.
#pragma once

#include <atomic>
#include <cstdint>

namespace ggserve {

// One sequence's rows of a batch: positions n_past … n_past + n_new - 1 are rows row … row + n_new - 1.
// cells[p] is the cache row that holds position p; all up to the last new position are set. slot: of its recurrent
// state; -1: its rows only pad the batch, and repeat the one before.
struct Sequence {
    const int32_t * cells;
    int32_t n_past;
    int32_t n_new;
    int32_t row;
    int32_t slot;
};

struct Batch {
    const Sequence * sequences;
    int32_t n_sequences;
};

// One layer's attention. `next` hands out units of work and is reset before each computation.
struct Attention {
    const Batch * batch;
    float scale;
    float softcap;   // 0: off; s -> cap * tanh(s / cap) (Gemma 2)
    float max_bias;  // 0: off; ALiBi (Press 2021, arXiv 2108.12409)
    int32_t window;  // 0: off; a row at position p sees p - window + 1 … p; without causality p - window / 2 … p + window / 2
    bool chunked;    // instead it sees positions p - p % window … p (Llama 4)
    bool causal;     // else a row also sees the new positions of its sequence that come after it
    std::atomic<int32_t> next;
};

}  // namespace ggserve
