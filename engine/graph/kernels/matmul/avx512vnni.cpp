// Products with AVX512-VNNI, byte dot products on 512 bits (Cascade Lake 2019, Zen 4).
#include "layout.h"

#if defined(__x86_64__)
#include "../target.h"

GGSERVE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#include "avx2.h"
#include "avx512.h"

namespace ggserve {
namespace {

struct Set : Avx512 {
    static constexpr Dot DOT = Dot::DPBUSD;
    static Ints dot(Ints sum, Bytes w, const int8_t * a) { return _mm512_dpbusd_epi32(sum, w, broadcast(a)); }
};

}  // namespace
}  // namespace ggserve

#include "kernel.h"

namespace ggserve {

// All of them: see docs/acceleration.md.
static bool is_faster(ggml_type) { return true; }

extern const KernelSet avx512vnni_kernels;
const KernelSet avx512vnni_kernels = {"avx512vnni", kernel_of, is_faster, quantize_avx2};

}  // namespace ggserve

GGSERVE_TARGET_END
#endif
