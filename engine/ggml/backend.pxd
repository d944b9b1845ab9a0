from engine.libggml.backend cimport (
    ggml_backend_buffer_t, ggml_backend_buffer_type_t, ggml_backend_dev_t, ggml_backend_t,
)
from engine.libggml.ggml cimport ggml_threadpool_t


cdef class Device:
    cdef ggml_backend_dev_t ptr
    cdef readonly str name, description, backend, type
    cdef readonly size_t total
    cdef readonly bint maps_host_memory


cdef class BufferType:
    cdef ggml_backend_buffer_type_t ptr
    cdef readonly Device device
    cdef readonly str name
    cdef readonly bint is_host


cdef class Backend:
    cdef ggml_backend_t ptr
    cdef ggml_threadpool_t pool
    cdef readonly Device device
    cdef readonly int n_threads
    cdef void* proc(self, str name) except? NULL
    cdef _free_pool(self)


cdef class Buffer:
    cdef ggml_backend_buffer_t ptr
    cdef object keep  # what the memory belongs to, when it is not the buffer's own
    cdef readonly BufferType type
    cdef ggml_backend_buffer_t open(self) except NULL

    @staticmethod
    cdef Buffer wrap(ggml_backend_buffer_t ptr, BufferType type, object keep, str what)
