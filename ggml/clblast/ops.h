// The operations, by family. `supports_…` must not claim too much: ggml's scheduler relies on it.
#pragma once

#include "device.h"
#include "ggml.h"

namespace clblast_backend {

bool supports_elementwise(const ggml_tensor * op);
bool run_elementwise(Device & device, ggml_tensor * op);

bool supports_rows(const ggml_tensor * op);
bool run_rows(Device & device, ggml_tensor * op);

bool supports_product(const Device & device, const ggml_tensor * op);
bool run_product(Device & device, ggml_tensor * op);

bool supports_attention(const ggml_tensor * op);
bool run_attention(Device & device, ggml_tensor * op);

// The name of a type's decoder in kernels/blocks.cl; null if there is none.
const char * decoder(ggml_type type);
// Types without blocks, which kernels/plain.cl reads.
bool is_plain(ggml_type type);
// ALiBi's two bases, and the number of heads that use the first.
struct Slopes {
    cl_uint n_log2;
    float m0, m1;
};
Slopes slopes(float max_bias, int64_t n_head);

}  // namespace clblast_backend
