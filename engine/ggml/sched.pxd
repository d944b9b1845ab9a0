from engine.libggml.backend cimport ggml_backend_sched_t


cdef class Sched:
    cdef ggml_backend_sched_t ptr
    cdef readonly list backends
    cdef readonly bint lost
    cdef int check_open(self) except -1
    cdef int _require(self, bint fits) except -1
