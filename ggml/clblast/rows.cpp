#include "ggml-impl.h"
#include "launch.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace clblast_backend {

namespace {

constexpr int64_t LONGEST_SORT = 1024;  // the kernel compares all pairs

bool f32(const ggml_tensor * tensor) { return tensor->type == GGML_TYPE_F32; }
bool dense_rows(const ggml_tensor * tensor) { return f32(tensor) && tensor->nb[0] == sizeof(float); }

float parameter(const ggml_tensor * op, int i) {
    float found;
    std::memcpy(&found, op->op_params + i, sizeof(found));
    return found;
}

// The `kind` of set_blocks in kernels/plain.cl; -1 for other types.
int block_kind(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q8_0: return 0;
        case GGML_TYPE_Q4_0: return 1;
        case GGML_TYPE_Q4_1: return 2;
        case GGML_TYPE_Q5_0: return 3;
        case GGML_TYPE_Q5_1: return 4;
        default: return -1;
    }
}

bool supports_softmax(const ggml_tensor * op) {
    const ggml_tensor * mask = op->src[1], * sinks = op->src[2];
    if (!dense_rows(op->src[0]) || !dense_rows(op)) return false;
    if (mask != nullptr && mask->type != GGML_TYPE_F16 && mask->type != GGML_TYPE_F32) return false;
    return sinks == nullptr || f32(sinks);
}

bool supports_rope(const ggml_tensor * op) {
    const int mode = op->op_params[2];
    const int n_dims = op->op_params[1];
    return dense_rows(op->src[0]) && dense_rows(op) && op->ne[0] % 2 == 0 && n_dims % 2 == 0 && n_dims <= op->ne[0] &&
           op->op_params[15] == 0 && (mode == GGML_ROPE_TYPE_NORMAL || mode == GGML_ROPE_TYPE_NEOX);
}

bool run_softmax(Device & device, ggml_tensor * op) {
    const ggml_tensor * x = op->src[0], * mask = op->src[1], * sinks = op->src[2];
    const float max_bias = parameter(op, 1);
    const Slopes s = slopes(max_bias, x->ne[2]);
    Call call(device, "rows", "softmax");
    call << x << (mask != nullptr ? mask : x) << cl_int(mask != nullptr ? mask->type : -1);
    call << (sinks != nullptr ? sinks : x) << cl_int(sinks != nullptr) << op;
    call << parameter(op, 0) << max_bias << s.n_log2 << s.m0 << s.m1;
    return call.run_groups(ggml_nrows(x));
}

bool run_rope(Device & device, ggml_tensor * op) {
    const ggml_tensor * x = op->src[0], * positions = op->src[1], * factors = op->src[2];
    const int n_dims = op->op_params[1], mode = op->op_params[2], n_ctx_orig = op->op_params[4];
    const float freq_base = parameter(op, 5), freq_scale = parameter(op, 6), ext_factor = parameter(op, 7);
    float ramp[2], mscale = parameter(op, 8);
    ggml_rope_yarn_corr_dims(n_dims, n_ctx_orig, freq_base, parameter(op, 9), parameter(op, 10), ramp);
    if (ext_factor != 0.0f) mscale *= 1.0f + 0.1f * std::log(1.0f / freq_scale);
    Call call(device, "rows", "rope");
    call << x << positions << (factors != nullptr ? factors : positions) << cl_int(factors != nullptr) << op;
    call << cl_uint(n_dims) << cl_int(mode == GGML_ROPE_TYPE_NEOX) << std::pow(freq_base, -2.0f / n_dims) << freq_scale;
    call << ext_factor << mscale << ramp[0] << ramp[1];
    return call.run(ggml_nelements(x) / 2);
}

bool run_set_rows(Device & device, ggml_tensor * op) {
    const ggml_tensor * x = op->src[0], * ids = op->src[1];
    const cl_int wide = ids->type == GGML_TYPE_I64;
    if (const int kind = block_kind(op->type); kind >= 0) {
        const auto size = cl_uint(ggml_type_size(op->type));
        Call call(device, "plain", "set_blocks");
        return (call << x << ids << wide << op << cl_int(kind) << size).run(ggml_nelements(x) / 32);
    }
    return (Call(device, "plain", "set_rows") << x << ids << wide << op << cl_int(op->type)).run(ggml_nelements(x));
}

bool run_get_rows(Device & device, ggml_tensor * op) {
    const ggml_tensor * table = op->src[0], * ids = op->src[1];
    const char * type = decoder(table->type);
    if (type != nullptr && table->ne[0] % 16 == 0) {
        return (Call(device, "matmul", "get_rows", type) << table << ids << op).run(ggml_nelements(op) / 16);
    }
    Call call(device, "plain", "get_rows_any");
    return (call << table << cl_int(table->type) << ids << op).run(ggml_nelements(op));
}

}  // namespace

Slopes slopes(float max_bias, int64_t n_head) {
    const auto n_log2 = cl_uint(1) << cl_uint(std::floor(std::log2(float(std::max<int64_t>(n_head, 1)))));
    return {n_log2, std::pow(2.0f, -max_bias / n_log2), std::pow(2.0f, -max_bias / 2.0f / n_log2)};
}

bool supports_rows(const ggml_tensor * op) {
    const ggml_tensor * a = op->src[0], * b = op->src[1];
    switch (op->op) {
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_SUM_ROWS: return dense_rows(a) && dense_rows(op);
        case GGML_OP_SOFT_MAX: return supports_softmax(op);
        case GGML_OP_ROPE: return supports_rope(op);
        case GGML_OP_ARGSORT: return dense_rows(a) && a->ne[0] <= LONGEST_SORT;
        case GGML_OP_GET_ROWS:
            if (b->type != GGML_TYPE_I32) return false;
            if (a->type == GGML_TYPE_I32) return op->type == GGML_TYPE_I32;
            return dense_rows(op) && (decoder(a->type) != nullptr || is_plain(a->type)) &&
                   a->nb[0] == ggml_type_size(a->type);
        case GGML_OP_SET_ROWS:
            if (!dense_rows(a) || (b->type != GGML_TYPE_I64 && b->type != GGML_TYPE_I32)) return false;
            return is_plain(op->type) || block_kind(op->type) >= 0;
        default: return false;
    }
}

bool run_rows(Device & device, ggml_tensor * op) {
    const ggml_tensor * a = op->src[0];
    switch (op->op) {
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM: {
            Call call(device, "rows", "norm");
            return (call << a << op << parameter(op, 0) << cl_int(op->op == GGML_OP_RMS_NORM)).run_groups(ggml_nrows(a));
        }
        case GGML_OP_SUM_ROWS: return (Call(device, "rows", "sum_rows") << a << op).run_groups(ggml_nrows(a));
        case GGML_OP_SOFT_MAX: return run_softmax(device, op);
        case GGML_OP_ROPE: return run_rope(device, op);
        case GGML_OP_ARGSORT: {
            Call call(device, "rows", "argsort");
            return (call << a << op << cl_int(op->op_params[0] == GGML_SORT_ORDER_DESC)).run_groups(ggml_nrows(a));
        }
        case GGML_OP_GET_ROWS: return run_get_rows(device, op);
        default: return run_set_rows(device, op);
    }
}

}  // namespace clblast_backend
