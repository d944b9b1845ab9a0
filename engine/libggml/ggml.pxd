# ggml.h: what we use of it, in its order.
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

cdef extern from "ggml.h" nogil:
    enum:
        GGML_MAX_DIMS
        GGML_MAX_NAME
        GGML_MAX_N_THREADS
        GGML_ROPE_TYPE_NORMAL
        GGML_ROPE_TYPE_NEOX
        GGML_N_TASKS_MAX

    enum ggml_status:
        GGML_STATUS_ALLOC_FAILED
        GGML_STATUS_FAILED
        GGML_STATUS_SUCCESS
        GGML_STATUS_ABORTED

    enum ggml_type:
        GGML_TYPE_F32
        GGML_TYPE_F16
        GGML_TYPE_I8
        GGML_TYPE_I32
        GGML_TYPE_I64
        GGML_TYPE_COUNT

    enum ggml_prec:
        GGML_PREC_F32

    enum ggml_log_level:
        GGML_LOG_LEVEL_NONE
        GGML_LOG_LEVEL_DEBUG
        GGML_LOG_LEVEL_INFO
        GGML_LOG_LEVEL_WARN
        GGML_LOG_LEVEL_ERROR
        GGML_LOG_LEVEL_CONT

    enum ggml_unary_op:
        GGML_UNARY_OP_SILU
        GGML_UNARY_OP_GELU
        GGML_UNARY_OP_GELU_ERF
        GGML_UNARY_OP_RELU
        GGML_UNARY_OP_SIGMOID

    struct ggml_context
    struct ggml_cgraph
    struct ggml_backend_buffer

    struct ggml_tensor:
        ggml_type type
        ggml_backend_buffer* buffer
        int64_t ne[4]
        size_t nb[4]
        ggml_tensor* view_src
        size_t view_offs
        ggml_tensor** src
        void* data
        char* name

    struct ggml_init_params:
        size_t mem_size
        void* mem_buffer
        bint no_alloc

    struct ggml_threadpool
    ctypedef ggml_threadpool* ggml_threadpool_t
    struct ggml_threadpool_params:
        int n_threads
        uint32_t poll

    ctypedef void (*ggml_log_callback)(ggml_log_level level, const char* text, void* user_data) noexcept
    ctypedef bint (*ggml_abort_callback)(void* data) noexcept
    ctypedef void (*ggml_abort_callback_t)(const char* error_message) noexcept
    ctypedef void (*ggml_custom_op_t)(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept

    uint16_t ggml_fp32_to_fp16(float x)
    const char* ggml_version()
    void ggml_log_set(ggml_log_callback log_callback, void* user_data)

    int64_t ggml_blck_size(ggml_type type)
    size_t ggml_type_size(ggml_type type)
    size_t ggml_row_size(ggml_type type, int64_t ne)
    const char* ggml_type_name(ggml_type type)
    size_t ggml_nbytes(const ggml_tensor* tensor)
    int64_t ggml_nelements(const ggml_tensor* tensor)
    bint ggml_is_contiguous(const ggml_tensor* tensor)
    bint ggml_is_quantized(ggml_type type)

    ctypedef void (*ggml_to_float_t)(const void* x, float* y, int64_t k)
    struct ggml_type_traits:
        ggml_to_float_t to_float
    const ggml_type_traits* ggml_get_type_traits(ggml_type type)
    void ggml_quantize_init(ggml_type type)
    bint ggml_quantize_requires_imatrix(ggml_type type)
    size_t ggml_quantize_chunk(ggml_type type, const float* src, void* dst, int64_t start, int64_t nrows,
                               int64_t n_per_row, const float* imatrix)

    size_t ggml_tensor_overhead()
    ggml_context* ggml_init(ggml_init_params params)
    void ggml_free(ggml_context* ctx)

    ggml_tensor* ggml_new_tensor_4d(ggml_context* ctx, ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2,
                                    int64_t ne3)
    ggml_tensor* ggml_get_first_tensor(const ggml_context* ctx)
    ggml_tensor* ggml_get_next_tensor(const ggml_context* ctx, ggml_tensor* tensor)
    ggml_tensor* ggml_set_name(ggml_tensor* tensor, const char* name)
    void ggml_set_input(ggml_tensor* tensor)
    void ggml_set_output(ggml_tensor* tensor)

    ggml_tensor* ggml_add(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_mul(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_div(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_sum_rows(ggml_context* ctx, ggml_tensor* a)
    ggml_tensor* ggml_unary(ggml_context* ctx, ggml_tensor* a, ggml_unary_op op)
    ggml_tensor* ggml_tanh(ggml_context* ctx, ggml_tensor* a)
    ggml_tensor* ggml_swiglu_split(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_swiglu_oai(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b, float alpha, float limit)
    ggml_tensor* ggml_add_id(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b, ggml_tensor* ids)
    ggml_tensor* ggml_norm(ggml_context* ctx, ggml_tensor* a, float eps)
    ggml_tensor* ggml_rms_norm(ggml_context* ctx, ggml_tensor* a, float eps)
    bint ggml_prec_set_acc(ggml_tensor* a, ggml_prec prec)
    ggml_tensor* ggml_mul_mat(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_mul_mat_id(ggml_context* ctx, ggml_tensor* experts, ggml_tensor* b, ggml_tensor* ids)
    ggml_tensor* ggml_scale(ggml_context* ctx, ggml_tensor* a, float s)
    ggml_tensor* ggml_cont(ggml_context* ctx, ggml_tensor* a)
    ggml_tensor* ggml_cont_2d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1)
    ggml_tensor* ggml_repeat_4d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)
    ggml_tensor* ggml_reshape_2d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1)
    ggml_tensor* ggml_reshape_3d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1, int64_t ne2)
    ggml_tensor* ggml_view_2d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1, size_t nb1, size_t offset)
    ggml_tensor* ggml_view_3d(ggml_context* ctx, ggml_tensor* a, int64_t ne0, int64_t ne1, int64_t ne2,
                              size_t nb1, size_t nb2, size_t offset)
    ggml_tensor* ggml_permute(ggml_context* ctx, ggml_tensor* a, int axis0, int axis1, int axis2, int axis3)
    ggml_tensor* ggml_get_rows(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b)
    ggml_tensor* ggml_set_rows(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b, ggml_tensor* c)
    ggml_tensor* ggml_cast(ggml_context* ctx, ggml_tensor* a, ggml_type type)
    ggml_tensor* ggml_concat(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b, int dim)
    ggml_tensor* ggml_clamp(ggml_context* ctx, ggml_tensor* a, float minimum, float maximum)
    ggml_tensor* ggml_soft_max_ext(ggml_context* ctx, ggml_tensor* a, ggml_tensor* mask, float scale, float max_bias)
    void ggml_soft_max_add_sinks(ggml_tensor* a, ggml_tensor* sinks)
    ggml_tensor* ggml_rope_ext(ggml_context* ctx, ggml_tensor* a, ggml_tensor* b, ggml_tensor* c, int n_dims, int mode,
                               int n_ctx_orig, float freq_base, float freq_scale, float ext_factor, float attn_factor,
                               float beta_fast, float beta_slow)
    ggml_tensor* ggml_argsort_top_k(ggml_context* ctx, ggml_tensor* a, int k)
    ggml_tensor* ggml_flash_attn_ext(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                                     ggml_tensor* mask, float scale, float max_bias, float logit_softcap)
    void ggml_flash_attn_ext_add_sinks(ggml_tensor* a, ggml_tensor* sinks)
    ggml_tensor* ggml_custom_4d(ggml_context* ctx, ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3,
                                ggml_tensor** args, int n_args, ggml_custom_op_t fun, int n_tasks, void* userdata)

    void ggml_build_forward_expand(ggml_cgraph* cgraph, ggml_tensor* tensor)
    ggml_cgraph* ggml_new_graph_custom(ggml_context* ctx, size_t size, bint grads)
    size_t ggml_graph_overhead_custom(size_t size, bint grads)
    int ggml_graph_n_nodes(ggml_cgraph* cgraph)

    ggml_threadpool_params ggml_threadpool_params_default(int n_threads)
