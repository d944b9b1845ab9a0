from libc.stdint cimport int32_t, int64_t
from libcpp.vector cimport vector

from engine.graph.ops.attention cimport Batch, PagedAttention


cdef extern from "recurrence.h" namespace "ggserve" nogil:
    struct Convolution:
        const Batch* batch
        int64_t offset
        bint silu

    struct Scan:
        const Batch* batch
        int64_t offset
        int32_t d_state

    struct Delta:
        const Batch* batch
        int64_t offset
        int32_t d
        int32_t n_key_heads
        bint tiled


cdef class RecurrentStates:
    cdef readonly object table  # None: the model has none
    cdef list offsets
    cdef PagedAttention paged  # knows the batch
    cdef vector[Convolution] convolutions
    cdef vector[Scan] scans
    cdef vector[Delta] deltas
    cdef size_t _check(self, int layer) except? 0
    cdef int _fits(self, int layer, int64_t n) except -1
