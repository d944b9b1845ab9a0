from libc.stdint cimport int32_t
from libcpp.vector cimport vector


cdef extern from "<atomic>" namespace "std" nogil:
    cdef cppclass atomic_int32 "std::atomic<int32_t>":
        void store(int32_t value)

cdef extern from "attention.h" namespace "ggserve" nogil:
    struct Sequence:
        const int32_t* cells
        int32_t n_past
        int32_t n_new
        int32_t row
        int32_t slot

    struct Batch:
        const Sequence* sequences
        int32_t n_sequences

    cppclass Attention:
        const Batch* batch
        float scale
        float softcap
        float max_bias
        int32_t window
        bint chunked
        bint causal
        atomic_int32 next


cdef class PagedAttention:
    cdef vector[Sequence] sequences
    cdef Batch batch
    cdef vector[Attention*] layers
    cdef list held  # what `prepare` points into
    cdef void begin(self) noexcept nogil
