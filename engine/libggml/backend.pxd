# ggml-backend.h and ggml-alloc.h: what we use of them, in their order.
from libc.stdint cimport uint8_t

from engine.libggml.ggml cimport (
    ggml_cgraph, ggml_context, ggml_status, ggml_tensor, ggml_threadpool_params, ggml_threadpool_t,
)

cdef extern from "ggml-backend.h" nogil:
    struct ggml_backend_buffer_type
    struct ggml_backend_buffer
    struct ggml_backend
    struct ggml_backend_reg
    struct ggml_backend_device
    struct ggml_backend_sched
    ctypedef ggml_backend_buffer_type* ggml_backend_buffer_type_t
    ctypedef ggml_backend_buffer* ggml_backend_buffer_t
    ctypedef ggml_backend* ggml_backend_t
    ctypedef ggml_backend_reg* ggml_backend_reg_t
    ctypedef ggml_backend_device* ggml_backend_dev_t
    ctypedef ggml_backend_sched* ggml_backend_sched_t

    const char* ggml_backend_buft_name(ggml_backend_buffer_type_t buft)
    ggml_backend_buffer_t ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t buft, size_t size)
    size_t ggml_backend_buft_get_alignment(ggml_backend_buffer_type_t buft)
    bint ggml_backend_buft_is_host(ggml_backend_buffer_type_t buft)

    enum ggml_backend_buffer_usage:
        GGML_BACKEND_BUFFER_USAGE_WEIGHTS

    void ggml_backend_buffer_free(ggml_backend_buffer_t buffer)
    void* ggml_backend_buffer_get_base(ggml_backend_buffer_t buffer)
    size_t ggml_backend_buffer_get_size(ggml_backend_buffer_t buffer)
    void ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value)
    bint ggml_backend_buffer_is_host(ggml_backend_buffer_t buffer)
    void ggml_backend_buffer_set_usage(ggml_backend_buffer_t buffer, ggml_backend_buffer_usage usage)

    void ggml_backend_free(ggml_backend_t backend)
    void ggml_backend_tensor_set(ggml_tensor* tensor, const void* data, size_t offset, size_t size)
    void ggml_backend_tensor_get(const ggml_tensor* tensor, void* data, size_t offset, size_t size)

    enum ggml_backend_dev_type "ggml_backend_dev_type":
        GGML_BACKEND_DEVICE_TYPE_CPU
        GGML_BACKEND_DEVICE_TYPE_GPU
        GGML_BACKEND_DEVICE_TYPE_IGPU
        GGML_BACKEND_DEVICE_TYPE_ACCEL
        GGML_BACKEND_DEVICE_TYPE_META

    struct ggml_backend_dev_caps:
        bint buffer_from_host_ptr
        bint mmap_support

    struct ggml_backend_dev_props:
        const char* name
        const char* description
        size_t memory_free
        size_t memory_total
        ggml_backend_dev_type type
        ggml_backend_dev_caps caps

    void ggml_backend_dev_get_props(ggml_backend_dev_t device, ggml_backend_dev_props* props)
    ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t device)
    ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t device, const char* params)
    ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device)
    ggml_backend_buffer_t ggml_backend_dev_buffer_from_host_ptr(ggml_backend_dev_t device, void* ptr, size_t size,
                                                                size_t max_tensor_size)
    bint ggml_backend_dev_supports_op(ggml_backend_dev_t device, const ggml_tensor* op)

    const char* ggml_backend_reg_name(ggml_backend_reg_t reg)
    void* ggml_backend_reg_get_proc_address(ggml_backend_reg_t reg, const char* name)

    ggml_backend_reg_t ggml_backend_reg_by_name(const char* name)
    void ggml_backend_register(ggml_backend_reg_t reg)
    size_t ggml_backend_dev_count()
    ggml_backend_dev_t ggml_backend_dev_get(size_t index)
    ggml_backend_reg_t ggml_backend_load(const char* path)
    void ggml_backend_load_all_from_path(const char* dir_path)

    ggml_backend_sched_t ggml_backend_sched_new(ggml_backend_t* backends, ggml_backend_buffer_type_t* bufts,
                                                int n_backends, size_t graph_size, bint parallel, bint op_offload)
    void ggml_backend_sched_free(ggml_backend_sched_t sched)
    bint ggml_backend_sched_reserve(ggml_backend_sched_t sched, ggml_cgraph* measure_graph)
    int ggml_backend_sched_get_n_splits(ggml_backend_sched_t sched)
    size_t ggml_backend_sched_get_buffer_size(ggml_backend_sched_t sched, ggml_backend_t backend)
    bint ggml_backend_sched_alloc_graph(ggml_backend_sched_t sched, ggml_cgraph* graph)
    ggml_status ggml_backend_sched_graph_compute(ggml_backend_sched_t sched, ggml_cgraph* graph)
    void ggml_backend_sched_reset(ggml_backend_sched_t sched)

    ggml_status ggml_backend_tensor_alloc(ggml_backend_buffer_t buffer, ggml_tensor* tensor, void* addr)

cdef extern from "ggml-alloc.h" nogil:
    size_t ggml_backend_alloc_ctx_tensors_from_buft_size(ggml_context* ctx, ggml_backend_buffer_type_t buft)
    ggml_backend_buffer_t ggml_backend_alloc_ctx_tensors_from_buft(ggml_context* ctx, ggml_backend_buffer_type_t buft)

# Reached through ggml_backend_reg_get_proc_address: backends are modules that nobody links against.
ctypedef void (*set_n_threads_fn)(ggml_backend_t backend, int n_threads) noexcept nogil
ctypedef ggml_backend_buffer_type_t* (*get_extra_bufts_fn)(ggml_backend_dev_t device) noexcept nogil
ctypedef ggml_threadpool_t (*threadpool_new_fn)(ggml_threadpool_params* params) noexcept nogil
ctypedef void (*threadpool_free_fn)(ggml_threadpool_t pool) noexcept nogil
ctypedef ggml_backend_reg_t (*rpc_add_server_fn)(const char* endpoint) noexcept nogil
ctypedef void (*rpc_start_server_fn)(const char* endpoint, const char* cache_dir, size_t n_threads, size_t n_devices,
                                     ggml_backend_dev_t* devices) noexcept nogil
ctypedef void (*set_threadpool_fn)(ggml_backend_t backend, ggml_threadpool_t pool) noexcept nogil
