# cython: embedsignature=True
"""ggml's scheduler: runs one graph over several backends, the CPU last."""

cimport cython
from libc.stdlib cimport free, malloc

from engine.errors import GgmlError, OutOfMemoryError
from engine.ggml.backend cimport Backend
from engine.ggml.check cimport not_null, ok
from engine.ggml.tensor cimport Graph
from engine.libggml.backend cimport (
    ggml_backend_sched_alloc_graph, ggml_backend_sched_free, ggml_backend_sched_get_buffer_size,
    ggml_backend_sched_get_n_splits, ggml_backend_sched_graph_compute, ggml_backend_sched_new,
    ggml_backend_sched_reserve, ggml_backend_sched_reset, ggml_backend_t,
)
from engine.libggml.ggml cimport ggml_status

MAX_BACKENDS = 16  # ggml's own limit


@cython.no_gc_clear  # the backends must be there as long as it is
cdef class Sched:
    """Owns the compute buffers of its backends; graphs of at most `graph_size` nodes and leafs.

    One graph is allocated at a time. It may be computed many times; its inputs must be written before
    each computation, since their memory is used again by later nodes.

    lost: there was too little memory for a graph. ggml has then freed its buffers, but would still place smaller
    graphs into them: call `reserve` before the next `allocate`.
    """

    def __init__(self, list backends not None, size_t graph_size):
        if not backends or backends[len(backends) - 1].device.type != "cpu":
            raise GgmlError("the CPU backend must come last")
        if len(backends) > MAX_BACKENDS:
            raise GgmlError(f"{len(backends)} devices at once; at most {MAX_BACKENDS} can be used")
        cdef ggml_backend_t* raw = <ggml_backend_t*>malloc(len(backends) * sizeof(ggml_backend_t))
        not_null(raw, "starting the scheduler")
        try:
            for i, backend in enumerate(backends):
                raw[i] = (<Backend?>backend).ptr
            self.ptr = ggml_backend_sched_new(raw, NULL, len(backends), graph_size, False, True)
        finally:
            free(raw)
        not_null(self.ptr, "starting the scheduler")
        self.backends = backends

    cdef int check_open(self) except -1:
        if self.ptr == NULL:
            raise GgmlError("this scheduler was closed")
        return 0

    def reserve(self, Graph graph not None):
        """Allocate the memory that `graph` needs. OutOfMemoryError if there is too little."""
        cdef bint fits
        self.check_open()
        with nogil:
            ggml_backend_sched_reset(self.ptr)
            fits = ggml_backend_sched_reserve(self.ptr, graph.ptr)
        self._require(fits)

    def allocate(self, Graph graph not None):
        """Make `graph` the one that `compute` runs. A graph can be allocated once."""
        cdef bint fits
        self.check_open()
        if self.lost:
            raise GgmlError("the compute buffers are lost; reserve memory first")
        with nogil:
            ggml_backend_sched_reset(self.ptr)
            fits = ggml_backend_sched_alloc_graph(self.ptr, graph.ptr)
        self._require(fits)

    cdef int _require(self, bint fits) except -1:
        self.lost = not fits
        if not fits:
            raise OutOfMemoryError("no room for the compute buffers; lower --max-batch-tokens or --gpu-layers")
        return 0

    def compute(self, Graph graph not None):
        """Run `graph` to the end."""
        cdef ggml_status status
        self.check_open()
        with nogil:
            status = ggml_backend_sched_graph_compute(self.ptr, graph.ptr)
        ok(status, "computing the graph")

    def buffer_size(self, Backend backend not None):
        """Bytes of the compute buffer on `backend`."""
        self.check_open()
        return ggml_backend_sched_get_buffer_size(self.ptr, backend.ptr)

    @property
    def n_splits(self):
        """Parts that the last graph was split into; 1: all of it runs on one device."""
        self.check_open()
        return ggml_backend_sched_get_n_splits(self.ptr)

    def close(self):
        if self.ptr != NULL:
            ggml_backend_sched_free(self.ptr)
            self.ptr = NULL

    def __dealloc__(self):
        if self.ptr != NULL:
            ggml_backend_sched_free(self.ptr)
