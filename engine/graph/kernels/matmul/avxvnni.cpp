// Products with AVX-VNNI, byte dot products on 256 bits (Alder Lake 2021, Zen 5).
#include "layout.h"

#if defined(__x86_64__)
#include "../target.h"

GGSERVE_TARGET("avx2,fma,f16c,avxvnni")

#include "avx2.h"

namespace ggserve {
namespace {

struct Set : Avx2 {
    static constexpr Dot DOT = Dot::DPBUSD;
    static Ints dot(Ints sum, Bytes w, const int8_t * a) { return _mm256_dpbusd_avx_epi32(sum, w, broadcast(a)); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// All of them, as AVX2 with fewer instructions. Measured only beside ggml's AVX512 code: see docs/acceleration.md.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet avxvnni_kernels;
const KernelSet avxvnni_kernels = {"avxvnni", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
