// Products of each row with the experts that were chosen for it: the rows of one expert together, as tiles.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../sets.h"
#include "layout.h"
#include "matmul.h"

namespace ggserve {

namespace {

// Up to TILE rows of one expert, which follow each other once rows are in the order of their experts.
struct ExpertTile {
    int32_t expert, first, n;
};

// A row in the order of experts: which of the pairs [n_used, rows] it is, and its tile.
struct Position {
    int32_t pair, tile;
};

// What `order_forward` writes into an I32 tensor, and the other operations read.
struct Order {
    int32_t * n_tiles;
    ExpertTile * tiles;     // at most one for each pair
    Position * positions;  // one for each pair

    Order(const ggml_tensor * t, int64_t n_pairs)
        : n_tiles((int32_t *)t->data), tiles((ExpertTile *)(n_tiles + 1)), positions((Position *)(tiles + n_pairs)) {}
};

}  // namespace

size_t order_size(int64_t n_pairs) { return 1 + n_pairs * (sizeof(ExpertTile) + sizeof(Position)) / sizeof(int32_t); }

void order_forward(ggml_tensor * dst, int ith, int, void * userdata) {
    if (ith != 0) return;
    const ggml_tensor * ids = dst->src[0];
    const int64_t n_used = ids->ne[0], n_pairs = n_used * ids->ne[1];
    const int32_t n_experts = ((const Product *)userdata)->n_experts;
    const auto expert_of = [&](int64_t pair) {
        return *(const int32_t *)((const char *)ids->data + pair / n_used * ids->nb[1] + pair % n_used * ids->nb[0]);
    };
    static thread_local std::vector<int32_t> next;  // where the next row of each expert goes
    next.assign(n_experts + 1, 0);
    for (int64_t pair = 0; pair < n_pairs; pair++) {
        const int32_t expert = expert_of(pair);
        GGML_ASSERT(expert >= 0 && expert < n_experts);
        next[expert + 1]++;
    }
    Order order(dst, n_pairs);
    int32_t n_tiles = 0;
    for (int32_t expert = 0; expert < n_experts; expert++) {
        const int32_t end = next[expert + 1] += next[expert];
        for (int32_t first = next[expert]; first < end; first += TILE, n_tiles++) {
            const int32_t n = std::min(TILE, end - first);
            order.tiles[n_tiles] = {expert, first, n};
            for (int32_t i = first; i < first + n; i++) order.positions[i].tile = n_tiles;
        }
    }
    *order.n_tiles = n_tiles;
    for (int64_t pair = 0; pair < n_pairs; pair++) order.positions[next[expert_of(pair)]++].pair = (int32_t)pair;
}

void quantize_experts_forward(ggml_tensor * dst, int ith, int nth, void *) {
    const ggml_tensor * x = dst->src[0];
    const auto quantize = in_force().products->quantize;
    const int64_t n_blocks = x->ne[0] / BLOCK, n_pairs = dst->ne[1], n_used = n_pairs / x->ne[2];
    const Order order(dst->src[1], n_pairs);
    for (int64_t i = n_pairs * ith / nth, end = n_pairs * (ith + 1) / nth; i < end; i++) {
        const Position at = order.positions[i];
        const ExpertTile tile = order.tiles[at.tile];
        const int64_t row = at.pair / n_used, slot = x->ne[1] == 1 ? 0 : at.pair % n_used;
        const float * in = (const float *)((const char *)x->data + row * x->nb[2] + slot * x->nb[1]);
        quantize(in, n_blocks, (Activations *)dst->data + tile.first * n_blocks + (i - tile.first), tile.n);
    }
}

void experts_forward(ggml_tensor * dst, int, int nth, void * userdata) {
    Product & product = *(Product *)userdata;
    const ggml_tensor *packed = dst->src[0], *x = dst->src[1];
    const Order order(dst->src[2], x->ne[1]);
    const int64_t n_blocks = x->ne[0] / (int64_t)sizeof(Activations), n_groups = dst->ne[0] / ROWS;
    const size_t bytes_per_group = group_bytes(format_of(product.type), n_blocks);
    const GroupKernel kernel = in_force().products->kernel_of(product.type);
    const int64_t per_piece = std::clamp<int64_t>(n_groups * *order.n_tiles / (8 * nth), 1, std::min<int64_t>(n_groups, 16));
    const int64_t pieces = (n_groups + per_piece - 1) / per_piece, total = pieces * *order.n_tiles;
    alignas(64) float out[TILE * ROWS];
    for (int64_t piece = product.work.take(); piece < total; piece = product.work.take()) {
        const ExpertTile tile = order.tiles[piece / pieces];
        const Activations * rows = (const Activations *)x->data + tile.first * n_blocks;
        const uint8_t * expert = (const uint8_t *)packed->data + tile.expert * n_groups * bytes_per_group;
        const int64_t begin = piece % pieces * per_piece, end = std::min(begin + per_piece, n_groups);
        for (int64_t g = begin; g < end; g++) {
            kernel(expert + g * bytes_per_group, n_blocks, rows, tile.n, out, ROWS);
            for (int i = 0; i < tile.n; i++) {
                const int64_t pair = order.positions[tile.first + i].pair;
                memcpy((float *)((char *)dst->data + pair * dst->nb[1]) + g * ROWS, out + i * ROWS, ROWS * sizeof(float));
            }
        }
    }
    product.work.leave(nth);
}

}  // namespace ggserve
