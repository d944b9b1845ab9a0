// The operations, with vectors of GGSERVE_WIDTH floats. Included once, by a file compiled for them.
//
// As target.h says, without functions of the standard library that the linker could share between files.
#pragma once

#include "vectors.h"

#include "activation.h"
#include "attention.h"
#include "recurrence.h"

namespace ggserve {
namespace {

constexpr Vectors VECTORS = {attention_forward, gelu_forward, convolution_forward, scan_forward, delta_forward};

}  // namespace
}  // namespace ggserve
