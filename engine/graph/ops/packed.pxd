from engine.libggml.ggml cimport ggml_custom_op_t


cdef extern from "vectors/vectors.h" namespace "ggserve" nogil:
    struct Vectors:
        ggml_custom_op_t attention
        ggml_custom_op_t gelu
        ggml_custom_op_t convolution
        ggml_custom_op_t scan
        ggml_custom_op_t delta


cdef const Vectors* vectors() except NULL  # of the kernel set in force. ConfigError as `instruction_set`
