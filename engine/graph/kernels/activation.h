// GELU (Hendrycks 2016, arXiv 1606.08415) in F32, as a ggml custom operation for the CPU.
#pragma once

#include <cstdint>

struct ggml_tensor;

namespace ggserve {

enum Gelu : intptr_t { GELU_TANH, GELU_ERF };

// dst = gelu(src0), or gelu(src0) * src1 where there is a src1. All F32 of one shape, dst contiguous, rows of
// the sources anywhere. userdata: a Gelu. ggml's own tanh form looks up a table of halves (errors of 1e-3),
// its erf form calls the scalar function.
void gelu_forward(ggml_tensor * dst, int ith, int nth, void * userdata);

}  // namespace ggserve
