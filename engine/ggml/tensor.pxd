from engine.libggml.ggml cimport ggml_cgraph, ggml_context, ggml_tensor


cdef class Context:
    cdef ggml_context* ptr
    cdef size_t room  # tensor slots left
    cdef readonly list buffers
    cdef readonly dict shared  # what several operations use and the first of them built
    cdef Tensor wrap(self, ggml_tensor* ptr)
    cdef int reserve(self) except -1


cdef class Tensor:
    cdef ggml_tensor* ptr
    cdef readonly Context context


cdef class Graph:
    cdef ggml_cgraph* ptr
    cdef readonly Context context
