#include "ggml-impl.h"
#include "launch.h"
#include "ops.h"

#include <clblast_c.h>

#include <algorithm>

namespace clblast_backend {

namespace {

constexpr int64_t MOST_COLUMNS = 8;             // for our kernel for few columns; more columns go to CLBlast
constexpr size_t MOST_SCRATCH = 64u << 20;      // bytes of weights dequantized to float32 at a time

bool rows_of_chunks(const ggml_tensor * weights) {
    return decoder(weights->type) != nullptr && weights->ne[0] % 16 == 0 &&
           weights->nb[0] == ggml_type_size(weights->type);
}

bool times_few(Device & device, const ggml_tensor * w, const ggml_tensor * x, ggml_tensor * op) {
    for (int64_t first = 0; first < x->ne[1]; first += MOST_COLUMNS) {
        Call call(device, "matmul", "times_few", decoder(w->type));
        call << w << x << op << cl_uint(first) << cl_uint(std::min(MOST_COLUMNS, x->ne[1] - first));
        if (!call.run_groups(w->ne[1], op->ne[2] * op->ne[3])) return false;
    }
    return true;
}

// Rows `first` … of matrix (i2, i3) of w, as float32 in `out`.
bool dequantize(Device & device, const ggml_tensor * w, int64_t first, int64_t n, int64_t i2, int64_t i3, cl_mem out) {
    const bool chunks = rows_of_chunks(w);
    Call call(device, chunks ? "matmul" : "plain", chunks ? "dequantize" : "dequantize_any",
              chunks ? decoder(w->type) : "");
    call << w;
    if (!chunks) call << cl_int(w->type);
    call << cl_ulong(first) << cl_ulong(n) << cl_ulong(i2) << cl_ulong(i3) << out;
    return call.run(n * w->ne[0] / (chunks ? 16 : 1));
}

// Column-major, as in BLAS: op [M, N] = w [K, M] transposed times x [K, N].
bool gemm(Device & device, int64_t m, int64_t n, int64_t k, cl_mem a, size_t a_offset, size_t lda, Place b, size_t ldb,
          Place c, size_t ldc) {
    const CLBlastStatusCode code =
        CLBlastSgemm(CLBlastLayoutColMajor, CLBlastTransposeYes, CLBlastTransposeNo, m, n, k, 1.0f, a, a_offset, lda,
                     b.memory, b.offset / 4, ldb, 0.0f, c.memory, c.offset / 4, ldc, &device.queue, nullptr);
    return ok(code, "CLBlastSgemm");
}

bool times_many(Device & device, const ggml_tensor * w, const ggml_tensor * x, ggml_tensor * op) {
    const int64_t k = w->ne[0], m = w->ne[1], n = x->ne[1];
    const bool direct = w->type == GGML_TYPE_F32 && w->nb[0] == 4 && w->nb[1] % 4 == 0 && place(w).offset % 4 == 0;
    const int64_t tile = direct ? m : std::clamp<int64_t>(MOST_SCRATCH / (4 * k), 1, m);
    cl_mem scratch = direct ? nullptr : device.scratch(4 * k * tile);
    if (!direct && scratch == nullptr) return false;
    for (int64_t i3 = 0; i3 < op->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < op->ne[2]; i2++) {
            const int64_t w2 = i2 * w->ne[2] / op->ne[2], w3 = i3 * w->ne[3] / op->ne[3];
            Place b = place(x), c = place(op);
            b.offset += i2 * x->nb[2] + i3 * x->nb[3];
            c.offset += i2 * op->nb[2] + i3 * op->nb[3];
            if (direct) {
                const size_t offset = place(w).offset + w2 * w->nb[2] + w3 * w->nb[3];
                if (!gemm(device, m, n, k, place(w).memory, offset / 4, w->nb[1] / 4, b, x->nb[1] / 4, c, op->nb[1] / 4)) {
                    return false;
                }
                continue;
            }
            for (int64_t first = 0; first < m; first += tile) {
                const int64_t rows = std::min(tile, m - first);
                if (!dequantize(device, w, first, rows, w2, w3, scratch)) return false;
                const Place part{c.memory, c.offset + 4 * first};
                if (!gemm(device, rows, n, k, scratch, 0, k, b, x->nb[1] / 4, part, op->nb[1] / 4)) return false;
            }
        }
    }
    return true;
}

// BLAS needs a column stride that is a whole number of elements and at least the column's length.
bool suits_gemm(const ggml_tensor * w, const ggml_tensor * x, const ggml_tensor * op) {
    const auto columns = [](const ggml_tensor * t) {
        return t->nb[0] == 4 && t->nb[1] % 4 == 0 && t->nb[1] >= 4 * size_t(t->ne[0]) && t->nb[2] % 4 == 0 &&
               t->nb[3] % 4 == 0;
    };
    if (w->type == GGML_TYPE_F32 && !columns(w)) return false;
    return columns(x) && columns(op);
}

}  // namespace

bool is_plain(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

const char * decoder(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: return "f32";
        case GGML_TYPE_F16: return "f16";
        case GGML_TYPE_BF16: return "bf16";
        case GGML_TYPE_Q4_0: return "q4_0";
        case GGML_TYPE_Q4_1: return "q4_1";
        case GGML_TYPE_Q5_0: return "q5_0";
        case GGML_TYPE_Q5_1: return "q5_1";
        case GGML_TYPE_Q8_0: return "q8_0";
        case GGML_TYPE_Q2_K: return "q2_K";
        case GGML_TYPE_Q3_K: return "q3_K";
        case GGML_TYPE_Q4_K: return "q4_K";
        case GGML_TYPE_Q5_K: return "q5_K";
        case GGML_TYPE_Q6_K: return "q6_K";
        default: return nullptr;
    }
}

bool supports_product(const Device & device, const ggml_tensor * op) {
    const ggml_tensor * w = op->src[0], * x = op->src[1];
    if (op->type != GGML_TYPE_F32 || x->type != GGML_TYPE_F32) return false;
    if (op->op == GGML_OP_MUL_MAT_ID && op->src[2]->type != GGML_TYPE_I32) return false;
    if (ggml_nbytes(w) > device.largest_buffer) return false;
    return is_plain(w->type) || (rows_of_chunks(w) && x->nb[0] == 4);
}

bool run_product(Device & device, ggml_tensor * op) {
    const ggml_tensor * w = op->src[0], * x = op->src[1];
    const bool chunks = rows_of_chunks(w) && x->nb[0] == 4;
    if (op->op == GGML_OP_MUL_MAT_ID) {
        if (chunks) {
            Call call(device, "matmul", "times_expert", decoder(w->type));
            return (call << w << x << op->src[2] << op).run_groups(w->ne[1], op->ne[1] * op->ne[2]);
        }
        Call call(device, "plain", "times_expert_any");
        return (call << w << cl_int(w->type) << x << op->src[2] << op).run(ggml_nelements(op));
    }
    if (chunks && x->ne[1] <= MOST_COLUMNS) return times_few(device, w, x, op);
    if (suits_gemm(w, x, op)) return times_many(device, w, x, op);
    if (chunks) return times_few(device, w, x, op);
    return (Call(device, "plain", "times_any") << w << cl_int(w->type) << x << op).run(ggml_nelements(op));
}

}  // namespace clblast_backend
