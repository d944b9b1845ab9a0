// Vectors of 128 bits, which every processor has (SSE2, NEON).
#include "headers.h"

#define GGSERVE_WIDTH 4
#include "all.h"

namespace ggserve {

extern const Vectors baseline_vectors;
const Vectors baseline_vectors = VECTORS;

}  // namespace ggserve
