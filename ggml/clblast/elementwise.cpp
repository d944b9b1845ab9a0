#include "ggml-impl.h"
#include "launch.h"
#include "ops.h"

#include <cstring>

namespace clblast_backend {

namespace {

// Operation numbers; the same as in kernels/elementwise.cl.
enum Function { SCALE, CLAMP, SILU, GELU, GELU_ERF, GELU_QUICK, RELU, SIGMOID, TANH, SQR, SQRT, EXP, NEG, ABS, LOG,
                SIN, COS, NONE = -1 };

Function function(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_SCALE: return SCALE;
        case GGML_OP_CLAMP: return CLAMP;
        case GGML_OP_SQR: return SQR;
        case GGML_OP_SQRT: return SQRT;
        case GGML_OP_LOG: return LOG;
        case GGML_OP_SIN: return SIN;
        case GGML_OP_COS: return COS;
        case GGML_OP_UNARY: break;
        default: return NONE;
    }
    switch (ggml_get_unary_op(op)) {
        case GGML_UNARY_OP_SILU: return SILU;
        case GGML_UNARY_OP_GELU: return GELU;
        case GGML_UNARY_OP_GELU_ERF: return GELU_ERF;
        case GGML_UNARY_OP_GELU_QUICK: return GELU_QUICK;
        case GGML_UNARY_OP_RELU: return RELU;
        case GGML_UNARY_OP_SIGMOID: return SIGMOID;
        case GGML_UNARY_OP_TANH: return TANH;
        case GGML_UNARY_OP_EXP: return EXP;
        case GGML_UNARY_OP_NEG: return NEG;
        case GGML_UNARY_OP_ABS: return ABS;
        default: return NONE;
    }
}

// The activation of a gated unit; NONE if unsupported, CLAMP for GPT-OSS's.
Function gate(const ggml_tensor * op) {
    switch (ggml_get_glu_op(op)) {
        case GGML_GLU_OP_SWIGLU: return SILU;
        case GGML_GLU_OP_GEGLU: return GELU;
        case GGML_GLU_OP_GEGLU_ERF: return GELU_ERF;
        case GGML_GLU_OP_GEGLU_QUICK: return GELU_QUICK;
        case GGML_GLU_OP_REGLU: return RELU;
        case GGML_GLU_OP_SWIGLU_OAI: return CLAMP;
        default: return NONE;
    }
}

int binary(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_ADD: return 0;
        case GGML_OP_SUB: return 1;
        case GGML_OP_MUL: return 2;
        case GGML_OP_DIV: return 3;
        default: return -1;
    }
}

bool f32(const ggml_tensor * tensor) { return tensor->type == GGML_TYPE_F32; }

float parameter(const ggml_tensor * op, int i) {
    float found;
    std::memcpy(&found, op->op_params + i, sizeof(found));
    return found;
}

bool run_gated(Device & device, ggml_tensor * op) {
    const ggml_tensor * a = op->src[0], * b = op->src[1];
    ggml_tensor gate_half = *a, up_half = b != nullptr ? *b : *a;
    if (b == nullptr) {  // gate and up in one row; the second parameter is their order
        const bool swapped = op->op_params[1] != 0;
        const size_t half = a->nb[0] * (a->ne[0] / 2);
        if (gate_half.view_src == nullptr) gate_half.view_src = up_half.view_src = const_cast<ggml_tensor *>(a);
        (swapped ? gate_half : up_half).data = static_cast<char *>(a->data) + half;
    }
    const Function f = gate(op);
    Call call(device, "elementwise", "gated");
    call << &gate_half << &up_half << op << cl_int(f) << cl_int(f == CLAMP) << parameter(op, 2) << parameter(op, 3);
    return call.run(ggml_nelements(op));
}

bool run_copy(Device & device, const ggml_tensor * from, const ggml_tensor * to) {
    Call call(device, "elementwise", "copy");
    return (call << from << cl_int(from->type) << to << cl_int(to->type)).run(ggml_nelements(to));
}

// Along the first axis: each half is copied to its part of the rows.
bool run_concat(Device & device, ggml_tensor * op) {
    const ggml_tensor * a = op->src[0], * b = op->src[1];
    ggml_tensor left = *op, right = *op;
    if (op->view_src == nullptr) left.view_src = right.view_src = op;
    left.ne[0] = a->ne[0];
    right.ne[0] = b->ne[0];
    right.data = static_cast<char *>(op->data) + a->ne[0] * op->nb[0];
    return run_copy(device, a, &left) && run_copy(device, b, &right);
}

}  // namespace

bool supports_elementwise(const ggml_tensor * op) {
    const ggml_tensor * a = op->src[0], * b = op->src[1];
    switch (op->op) {
        case GGML_OP_ADD:
        case GGML_OP_SUB:
        case GGML_OP_MUL:
        case GGML_OP_DIV:
            return f32(op) && f32(a) && f32(b) && ggml_can_repeat(b, a);
        case GGML_OP_GLU:
            return f32(op) && f32(a) && (b == nullptr || f32(b)) && gate(op) != NONE;
        case GGML_OP_ADD_ID:
            return f32(op) && f32(a) && f32(b) && op->src[2]->type == GGML_TYPE_I32;
        case GGML_OP_CONCAT: return f32(op) && f32(a) && f32(b) && op->op_params[0] == 0;
        case GGML_OP_CPY:
        case GGML_OP_CONT:
        case GGML_OP_DUP:
            if (a->type == GGML_TYPE_I32 || op->type == GGML_TYPE_I32) return a->type == op->type;
            return is_plain(a->type) && is_plain(op->type);
        default:
            return function(op) != NONE && f32(op) && f32(a);
    }
}

bool run_elementwise(Device & device, ggml_tensor * op) {
    const ggml_tensor * a = op->src[0];
    const size_t n = ggml_nelements(op);
    if (op->op == GGML_OP_GLU) return run_gated(device, op);
    if (op->op == GGML_OP_CONCAT) return run_concat(device, op);
    if (const int kind = binary(op); kind >= 0) {
        return (Call(device, "elementwise", "binary") << a << op->src[1] << op << cl_int(kind)).run(n);
    }
    if (op->op == GGML_OP_ADD_ID) {
        return (Call(device, "elementwise", "add_id") << a << op->src[1] << op->src[2] << op).run(n);
    }
    if (op->op == GGML_OP_CPY || op->op == GGML_OP_CONT || op->op == GGML_OP_DUP) {
        return run_copy(device, a, op);
    }
    const Function f = function(op);
    const bool has_parameters = f == SCALE || f == CLAMP;
    const float p = has_parameters ? parameter(op, 0) : 0.0f, q = has_parameters ? parameter(op, 1) : 0.0f;
    return (Call(device, "elementwise", "unary") << a << op << cl_int(f) << p << q).run(n);
}

}  // namespace clblast_backend
