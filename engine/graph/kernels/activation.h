// GELU (Hendrycks 2016, arXiv 1606.08415) in F32, as a ggml custom operation for the CPU: vectors/activation.h.
#pragma once

#include <cstdint>

namespace ggserve {

enum Gelu : intptr_t { GELU_TANH, GELU_ERF };

}  // namespace ggserve
