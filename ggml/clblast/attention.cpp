#include "ggml-impl.h"
#include "launch.h"
#include "ops.h"

#include <cstring>

namespace clblast_backend {

namespace {

constexpr int64_t LARGEST_HEAD = 256;  // 16 * MOST_CHUNKS of kernels/attention.cl

float parameter(const ggml_tensor * op, int i) {
    float found;
    std::memcpy(&found, op->op_params + i, sizeof(found));
    return found;
}

}  // namespace

bool supports_attention(const ggml_tensor * op) {
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3], * sinks = op->src[4];
    if (q->type != GGML_TYPE_F32 || q->nb[0] != 4 || op->type != GGML_TYPE_F32) return false;
    // One program serves both.
    if (k->type != v->type || decoder(k->type) == nullptr) return false;
    for (const ggml_tensor * t : {k, v}) {
        if (t->nb[0] != ggml_type_size(t->type) || t->ne[0] % 16 != 0 || t->ne[0] > LARGEST_HEAD) return false;
    }
    return (mask == nullptr || mask->type == GGML_TYPE_F16) && (sinks == nullptr || sinks->type == GGML_TYPE_F32);
}

bool run_attention(Device & device, ggml_tensor * op) {
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3], * sinks = op->src[4];
    const float max_bias = parameter(op, 1), softcap = parameter(op, 2);
    const Slopes s = slopes(max_bias, q->ne[2]);
    Call call(device, "attention", "attend", decoder(k->type));
    call << q << k << v << (mask != nullptr ? mask : q) << cl_int(mask != nullptr);
    call << (sinks != nullptr ? sinks : q) << cl_int(sinks != nullptr) << op;
    call << parameter(op, 0) << softcap << max_bias << s.n_log2 << s.m0 << s.m1;
    return call.run_groups(q->ne[1], q->ne[2], q->ne[3]);
}

}  // namespace clblast_backend
