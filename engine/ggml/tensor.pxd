from engine.libggml.ggml cimport ggml_cgraph, ggml_context, ggml_tensor


cdef class Storage:
    cdef ggml_context* ptr
    cdef size_t n_tensors, room  # tensor slots, and how many of them are left
    cdef readonly list buffers
    # Addresses of tensors that several operations use and the first of them built. Not Tensors: they hold
    # the context, and that cycle would keep every old graph until the collector comes by.
    cdef readonly dict shared
    cdef Tensor wrap(self, ggml_tensor* ptr)
    cdef int reserve(self) except -1


cdef class Tensor:
    cdef ggml_tensor* ptr
    cdef readonly Storage context
    cdef int need_memory(self) except -1


cdef class Graph:
    cdef ggml_cgraph* ptr
    cdef size_t size
    cdef readonly Storage context
