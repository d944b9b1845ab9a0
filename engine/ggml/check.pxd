from engine.libggml.ggml cimport ggml_status

cdef str because()
cdef int ok(ggml_status status, str what) except -1
cdef int not_null(const void* pointer, str what) except -1
