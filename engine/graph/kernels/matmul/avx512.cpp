// Products with AVX512 without byte dot products (Skylake-X 2017).
#include "layout.h"

#if defined(__x86_64__)
#include "../target.h"

GGSERVE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")

#include "avx2.h"
#include "avx512.h"

namespace ggserve {
namespace {

struct Set : Avx512 {
    static constexpr Dot DOT = Dot::MADDUBS;
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// All of them: see docs/acceleration.md.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet avx512_kernels;
const KernelSet avx512_kernels = {"avx512", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
