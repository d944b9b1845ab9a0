// Operations written with vectors of floats (attention.h, activation.h, recurrence.h), compiled once for each width of
// vectors: baseline.cpp, avx2.cpp, avx512.cpp. sets.cpp chooses among them together with the products' kernels.
#pragma once

#include "ggml.h"

namespace ggserve {

struct Vectors {
    ggml_custom_op_t attention, gelu, convolution, scan, delta;
};

}  // namespace ggserve
