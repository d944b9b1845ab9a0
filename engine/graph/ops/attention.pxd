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
    cdef vector[Sequence] windows  # the same sequences, whose cells are rows of layers with a window
    cdef vector[int32_t] window_tables
    cdef Batch batch, window_batch
    cdef vector[int] reads_windows  # by layer
    cdef vector[Attention*] layers
    cdef list held  # what `prepare` points into
    cdef void begin(self) noexcept nogil
    cdef int fill_windows(self, const int32_t[:] row_of, int n_rows, int reach) except -1
