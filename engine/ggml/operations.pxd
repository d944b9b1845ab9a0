from engine.ggml.tensor cimport Storage


cdef class Context(Storage):
    pass
