// Vectors of 512 bits (AVX512: Skylake-X 2017, Zen 4).
#include "headers.h"

#if defined(__x86_64__)
GGSERVE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")

#define GGSERVE_WIDTH 16
#include "all.h"

namespace ggserve {

extern const Vectors avx512_vectors;
const Vectors avx512_vectors = VECTORS;

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
