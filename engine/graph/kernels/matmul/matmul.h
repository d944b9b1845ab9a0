// Products with quantized weights, 16 output rows at a time, as ggml custom operations for the CPU.
//
// layout.h: how packed weights and quantized activations lie in memory. kernel.h: the arithmetic, for any
// instruction set. avx2.cpp, neon.cpp …: one instruction set each; ../sets.h chooses one of them at run time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace ggserve {

// Hands out pieces of work to the threads of one operation, and is ready again when all have ended.
struct Dispenser {
    std::atomic<int32_t> next{0}, finished{0};

    int32_t take() { return next.fetch_add(1, std::memory_order_relaxed); }

    void leave(int nth) {
        if (finished.fetch_add(1, std::memory_order_acq_rel) == nth - 1) {
            next.store(0, std::memory_order_relaxed);
            finished.store(0, std::memory_order_relaxed);
        }
    }
};

struct Product {
    ggml_type type;  // of the weights before packing
    int32_t n_experts;
    Dispenser work;
};

// Whether matrices of this type and shape can be packed; `is_faster`: and products are then as fast as ggml's or faster.
bool can_pack(ggml_type type, int64_t n_in, int64_t n_out);
bool is_faster_packed(ggml_type type);

// Bytes of a packed matrix.
size_t packed_size(ggml_type type, int64_t n_in, int64_t n_out);

// src: n_out rows of n_in weights in ggml's blocks. Takes n_threads threads of its own.
void pack(ggml_type type, const void * src, int64_t n_in, int64_t n_out, void * dst, int n_threads);

// The same, where src is in a file that is open as `fd`, from `offset` on: each thread reads what it packs. Returns 0,
// an error number of the system, or -1 if the file is too short.
int pack_file(ggml_type type, int fd, int64_t offset, int64_t n_in, int64_t n_out, void * dst, int n_threads);

// Bytes of one quantized activation row.
size_t activation_size(int64_t n_in);

// dst I8 [activation_size, rows]; src0 F32 [n_in, rows].
void quantize_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

// dst F32 [n_out, rows]; src0 packed weights I8; src1 quantized activations. userdata: Product.
void product_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

// Of experts. dst I32 [order_size]: which rows each expert has; src0 ids I32 [n_used, rows]. userdata: Product.
size_t order_size(int64_t n_pairs);
void order_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

// dst I8 [activation_size, n_used * rows], in the order of experts; src0 F32 [n_in, n_used | 1, rows]; src1 order.
void quantize_experts_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

// dst F32 [n_out, n_used, rows]; src0 packed weights I8; src1 quantized activations; src2 order. userdata: Product.
void experts_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

}  // namespace ggserve
