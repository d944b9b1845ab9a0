// Vectors of 256 bits (AVX2, FMA, F16C: Haswell 2013, Zen 2017).
#include "headers.h"

#if defined(__x86_64__)
GGSERVE_TARGET("avx2,fma,f16c")

#define GGSERVE_WIDTH 8
#include "all.h"

namespace ggserve {

extern const Vectors avx2_vectors;
const Vectors avx2_vectors = VECTORS;

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
