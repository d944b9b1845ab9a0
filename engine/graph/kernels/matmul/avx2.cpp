// Products with AVX2 (Haswell 2013, Zen 2017).
#include "layout.h"

#if defined(__x86_64__)
#include "../target.h"

GGSERVE_TARGET("avx2,fma,f16c")

#include "avx2.h"

namespace ggserve {
namespace {

struct Set : Avx2 {
    static constexpr Dot DOT = Dot::MADDUBS;
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// All of them: see docs/acceleration.md.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet avx2_kernels;
const KernelSet avx2_kernels = {"avx2", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
