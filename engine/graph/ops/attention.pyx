# cython: embedsignature=True
"""The CPU's own attention over paged KV cells, as an operation that graphs can use.

It reads the batch (which rows belong to which sequence, and each sequence's cells) from memory that stays in
place, so that neither masks nor the length of the cache are part of the graph.
"""

from cpython.array cimport array
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t
from libcpp.vector cimport vector

from engine.errors import GgmlError
from engine.ggml.operations cimport Context
from engine.ggml.tensor cimport Tensor
from engine.graph.ops.packed cimport vectors
from engine.libggml.ggml cimport (
    GGML_N_TASKS_MAX, GGML_TYPE_F32, ggml_blck_size, ggml_custom_4d, ggml_tensor,
)

cdef int TILE = 64  # of kernels/vectors/attention.h


cdef class PagedAttention:
    """The batch being computed, and the parameters of each layer; one per runner.

    windowed: per layer, whether its cache has rows for windows, so that it reads the cells of `windows`.
    """

    def __init__(self, int n_layers, list windowed=None):
        cdef int reads_windows
        for i in range(n_layers):
            reads_windows = windowed is not None and windowed[i]
            self.layers.push_back(new Attention())
            self.reads_windows.push_back(reads_windows)

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.layers.size()):
            del self.layers[i]

    cdef void begin(self) noexcept nogil:
        # After `sequences` was filled, before each computation.
        cdef size_t i
        self.batch.sequences = self.sequences.data()
        self.batch.n_sequences = <int>self.sequences.size()
        self.window_batch.sequences = self.windows.data()
        self.window_batch.n_sequences = <int>self.windows.size()
        for i in range(self.layers.size()):
            self.layers[i].batch = &self.batch
            if self.reads_windows[i]:
                self.layers[i].batch = &self.window_batch
            self.layers[i].next.store(0)

    cdef int fill_windows(self, const int32_t[:] row_of, int n_rows, int reach) except -1:
        # From `sequences`: with tables of rows, by cell, from the first position that a token sees.
        cdef int first, begin, p, row
        cdef size_t i
        cdef vector[size_t] starts
        cdef Sequence s
        self.windows.clear()
        self.window_tables.clear()
        for s in self.sequences:
            first = max(0, s.n_past - reach)
            begin = first - first % TILE  # the kernel reads from there, but uses nothing before the first
            starts.push_back(self.window_tables.size() - begin)
            for p in range(begin, s.n_past + s.n_new):
                row = row_of[s.cells[max(p, first)]]
                if not 0 <= row < n_rows:
                    raise GgmlError(f"cell {s.cells[max(p, first)]} has no row for layers with a window")
                self.window_tables.push_back(row)
        for i in range(self.sequences.size()):
            s = self.sequences[i]
            s.cells = self.window_tables.data() + <ptrdiff_t>starts[i]
            self.windows.push_back(s)
        return 0

    def prepare(self, list sequences not None):
        """Set the batch from (cells array('i'), n_past, n_new, first row[, slot]) and rewind, without a runner."""
        cdef Sequence sequence
        cdef array cells
        self.sequences.clear()
        self.held = sequences
        for cells, n_past, n_new, row, *slot in sequences:
            if len(cells) < n_past + n_new:
                raise GgmlError(f"{len(cells)} cells for {n_past} + {n_new} tokens")
            sequence.cells = <const int32_t*>cells.data.as_voidptr
            sequence.n_past, sequence.n_new, sequence.row = n_past, n_new, row
            sequence.slot = slot[0] if slot else 0
            self.sequences.push_back(sequence)
        self.begin()

    def op(self, Context ctx not None, int layer, Tensor q not None, Tensor k not None, Tensor v not None, int dv,
           float scale, float softcap, float max_bias, int window, Tensor sinks=None, bint causal=True,
           bint chunked=False):
        """q F32 [dk, heads, rows], k [dk * heads_kv, cells], v [dv * heads_kv, cells] -> [dv, heads, rows].

        v may be a view of the first elements of k's rows.

        The parameters are the operation's own; see `ForwardContext.attend`. sinks: F32 [heads].
        chunked: windows begin anew at each multiple of their size.
        causal False: a row also attends to what comes after it; a window reaches half as far both ways.
        """
        cdef ggml_tensor* args[4]
        cdef Attention* parameters
        if not 0 <= layer < <int>self.layers.size():
            raise GgmlError(f"attention: there is no layer {layer}")
        if (q.ptr.type != GGML_TYPE_F32 or q.ptr.nb[0] != sizeof(float) or v.ptr.ne[1] != k.ptr.ne[1]
                or k.ptr.ne[0] % q.ptr.ne[0] or q.ptr.ne[1] % (k.ptr.ne[0] // q.ptr.ne[0])
                or v.ptr.ne[0] != dv * (k.ptr.ne[0] // q.ptr.ne[0]) or q.ptr.ne[0] % ggml_blck_size(k.ptr.type)
                or dv % ggml_blck_size(v.ptr.type)):
            raise GgmlError(f"attention: {q!r}, {k!r} and {v!r} do not fit together")
        if sinks is not None and (sinks.ptr.type != GGML_TYPE_F32 or sinks.ptr.ne[0] != q.ptr.ne[1]):
            raise GgmlError(f"attention: {q!r} and sinks {sinks!r} do not fit together")
        parameters = self.layers[layer]
        parameters.scale, parameters.softcap = scale, softcap
        parameters.max_bias, parameters.window = max_bias, window
        parameters.causal, parameters.chunked = causal, chunked
        args[:] = [q.ptr, k.ptr, v.ptr, NULL]
        if sinks is not None:
            args[3] = sinks.ptr
        ctx.reserve()
        return ctx.wrap(ggml_custom_4d(
            ctx.ptr, GGML_TYPE_F32, dv, q.ptr.ne[1], q.ptr.ne[2], 1, args, 3 if sinks is None else 4,
            vectors().attention, GGML_N_TASKS_MAX, parameters))
