#include "matmul.h"

#include <algorithm>

#include "../sets.h"
#include "layout.h"

namespace ggserve {

namespace {

// Where the tile of activation row `row` begins, and how many rows it has.
struct Tile {
    int first, n;
    Tile(int row, int n_rows) : first(row / TILE * TILE), n(std::min(TILE, n_rows - first)) {}
};

}  // namespace

size_t activation_size(int64_t n_in) { return n_in / BLOCK * sizeof(Activations); }

bool can_pack(ggml_type type, int64_t n_in, int64_t n_out) {
    const Format f = format_of(type);
    return f.per_super && n_in % (f.per_super * BLOCK) == 0 && n_out % ROWS == 0 && in_force().products->kernel_of(type);
}

bool is_faster_packed(ggml_type type) { return in_force().products->is_faster(type); }

void quantize_forward(ggml_tensor * dst, int ith, int nth, void *) {
    const ggml_tensor * x = dst->src[0];
    const auto quantize = in_force().products->quantize;
    const int64_t n_blocks = x->ne[0] / BLOCK, n_rows = x->ne[1], n = n_blocks * n_rows;
    for (int64_t i = n * ith / nth, end = n * (ith + 1) / nth; i < end;) {
        const int64_t row = i / n_blocks, block = i % n_blocks, count = std::min(n_blocks - block, end - i);
        const Tile tile((int)row, (int)n_rows);
        const float * in = (const float *)((const char *)x->data + row * x->nb[1]) + block * BLOCK;
        Activations * out = (Activations *)dst->data + tile.first * n_blocks + block * tile.n + (row - tile.first);
        quantize(in, count, out, tile.n);
        i += count;
    }
}

void product_forward(ggml_tensor * dst, int, int nth, void * userdata) {
    Product & product = *(Product *)userdata;
    const ggml_tensor *packed = dst->src[0], *x = dst->src[1];
    const int64_t n_blocks = x->ne[0] / (int64_t)sizeof(Activations), n_groups = dst->ne[0] / ROWS;
    const int n_rows = (int)dst->ne[1], n_tiles = (n_rows + TILE - 1) / TILE;
    // Pieces of several groups: fewer of them when there are many threads to share them.
    const int64_t per_piece = std::clamp<int64_t>(n_groups / (8 * nth), 1, 16);
    const int64_t pieces = (n_groups + per_piece - 1) / per_piece;
    const size_t bytes_per_group = group_bytes(format_of(product.type), n_blocks);
    const GroupKernel kernel = in_force().products->kernel_of(product.type);
    for (int64_t piece = product.work.take(); piece < pieces * n_tiles; piece = product.work.take()) {
        const Tile tile((int)(piece / pieces) * TILE, n_rows);
        const Activations * rows = (const Activations *)x->data + tile.first * n_blocks;
        const int64_t begin = piece % pieces * per_piece, end = std::min(begin + per_piece, n_groups);
        for (int64_t g = begin; g < end; g++) {
            float * out = (float *)((char *)dst->data + tile.first * dst->nb[1]) + g * ROWS;
            kernel((const uint8_t *)packed->data + g * bytes_per_group, n_blocks, rows, tile.n, out,
                   dst->nb[1] / sizeof(float));
        }
    }
    product.work.leave(nth);
}

}  // namespace ggserve
