# cython: embedsignature=True
"""Runs batches: fills the inputs, builds or reuses the graph, computes it, and returns logits.

Concurrency: one thread at a time; the GIL is released while ggml computes.
"""

from time import perf_counter

from cpython.array cimport array
from libc.math cimport log
from libc.stdint cimport int32_t, int64_t, uint16_t
from libcpp.vector cimport vector

from engine.graph.forward_context import MASK_PAD, BatchShape, Execution, Mask, build
from engine.graph.ops.attention cimport PagedAttention, Sequence
from engine.graph.ops.recurrence import RecurrentStates
from engine.errors import DeviceError, EngineError, ModelError, SessionClosedError
from engine.ggml.sched cimport Sched
from engine.ggml.tensor cimport Graph, Tensor
from engine.libggml.backend cimport (
    ggml_backend_buffer_is_host, ggml_backend_sched_graph_compute, ggml_backend_tensor_get, ggml_backend_tensor_set,
)
from engine.libggml.ggml cimport GGML_STATUS_FAILED, ggml_fp32_to_fp16, ggml_status
from engine.ggml.check cimport because, ok

cdef uint16_t MINUS_INFINITY = 0xFC00  # F16


cdef class ModelRunner:
    """Computes a model: one batch in, rows of logits out.

    n_vocab: length of a row of logits. n_cells: cells of the cache. n_slots: recurrent states, 0 in a model without.
    n_rows: cells that layers with a window have instead, 0 where they have as many as the others.
    max_batch_tokens: most rows of a batch.
    row_multiple: rows that products of repacked weights take at a time. original_context_length: see `HParams`.
    compute_ms: milliseconds that ggml took for the last forward. graphs_built: how often no graph could be reused.
    """

    cdef readonly int n_vocab, n_embd, max_batch_tokens, n_cells, n_rows, n_slots, original_context_length
    cdef readonly bint causal
    cdef readonly double compute_ms
    cdef readonly long long graphs_built
    cdef object arch, execution, context
    cdef bint masked
    cdef readonly int row_multiple
    cdef Sched sched
    cdef PagedAttention paged
    cdef object shape
    cdef list adapters  # of each sequence
    cdef int width
    cdef bint is_hidden
    cdef vector[int32_t] tokens, positions, outputs, token_type_ids
    cdef vector[float] uses_long_rope, scales
    cdef vector[int64_t] cells, window_rows
    cdef vector[uint16_t] mask
    cdef vector[float] host_logits
    cdef const float* output_rows
    cdef int n_outputs
    cdef bint closed

    def __init__(self, arch, cache, Sched sched not None, list attention not None, list backends not None,
                 int max_batch_tokens, int row_multiple=1, states=None):
        """Eight parameters: what a model consists of once it is on its devices, and the limits of its batches.

        attention, backends: per layer, see `Execution`. states: a `StateCache`, if the model has recurrent layers.
        The caller owns `cache`, `states` and `sched`, and closes them.
        """
        self.arch, self.sched = arch, sched
        self.n_vocab, self.n_embd, self.n_cells = arch.hp.n_vocab, arch.hp.n_embd, cache.n_cells
        self.original_context_length, self.causal = arch.hp.original_context_length, arch.hp.causal
        self.max_batch_tokens, self.row_multiple = max_batch_tokens, row_multiple
        self.n_rows = 0 if cache.windows is None else cache.windows.n_rows
        self.paged = PagedAttention(
            len(attention), [cache.windowed[arch.hp.kv_source(i)] for i in range(len(attention))])
        recurrent = RecurrentStates(self.paged, len(attention))
        if states is not None:
            recurrent = RecurrentStates(self.paged, len(attention), states.table, states.offsets)
        self.n_slots = recurrent.n_slots
        self.execution = Execution(cache, self.paged, attention, backends, recurrent)
        self.masked = any(kind in ("flash", "explicit") for kind in attention)

    def reserve(self, int n_outputs, int n_adapters=0):
        """Allocate compute memory for the largest batch, of which `n_outputs` rows want logits.

        n_adapters: LoRA adapters, all of which it may use.

        Raises OutOfMemoryError if there is too little.
        """
        self._check_open()
        n_kv = self.n_cells if self.masked else 0
        lengths = "mixed" if self.original_context_length else "short"
        shape = BatchShape(self.max_batch_tokens, n_outputs, n_kv, lengths, hidden=not self.causal,
                           adapters=tuple(range(n_adapters)), n_rows=self.n_rows if self.masked else 0)
        self.sched.reserve(build(self.arch, self.execution, shape).graph)

    def forward(self, rows, bint hidden=False, bint scores=False):
        """Compute one batch of `engine.scheduler.batch.BatchItem`s; returns the number of rows of outputs.

        hidden: the outputs are hidden states instead of logits; with `scores`, what the classification head makes of
        them. A model that is not causal has no logits, and needs each sequence whole, in one batch.

        Raises EngineError (and computes nothing) if the batch does not fit this model and cache, OutOfMemoryError if
        there is no room for so many rows of outputs, DeviceError if a device failed.
        """
        self._check_open()
        if not hidden and not self.causal:
            raise ModelError(f"a {self.arch.name} model makes embeddings; it cannot generate text")
        rows = list(rows)  # keeps the tables of cells, which are read until the end, alive
        cdef int n_outputs = self._fill(rows)
        cdef int n_tokens = <int>self.tokens.size()
        cdef int n_kv = 0, n_rows = 0
        cdef ggml_status status
        cdef Graph graph
        self.n_outputs = 0
        if self.masked:
            n_kv = _span(_highest_cell(self.paged.sequences, self.n_cells), self.n_cells)
            n_rows = _span(_highest_cell(self.paged.windows, self._reach()), self.n_rows)
        shape = BatchShape(n_tokens, n_outputs, n_kv, self._rope_lengths(), hidden, scores, self._active(), n_rows)
        if shape != self.shape:
            self.shape = None
            if self.sched.lost:
                self.sched.reserve(build(self.arch, self.execution, shape).graph)
            self.context = build(self.arch, self.execution, shape)
            self.sched.allocate(self.context.graph)
            self.shape = shape
            self.graphs_built += 1
        self._write_inputs(n_kv, n_rows)
        graph = self.context.graph
        started = perf_counter()
        with nogil:
            self.paged.begin()
            status = ggml_backend_sched_graph_compute(self.sched.ptr, graph.ptr)
        self.compute_ms = (perf_counter() - started) * 1e3
        self._check(status)
        self.is_hidden = hidden
        self.width = self.arch.hp.n_scores if scores else self.n_embd if hidden else self.n_vocab
        if n_outputs:
            self._read_outputs(n_outputs)
        return n_outputs

    def logits(self, int i):
        """Row i of the last forward: float32 memoryview [n_vocab], valid until the next forward."""
        if not 0 <= i < self.n_outputs or self.is_hidden:
            raise EngineError(f"there is no row {i} of logits")
        return <const float[:self.n_vocab]>(self.output_rows + <size_t>i * self.n_vocab)

    def hidden(self, int i):
        """Row i of the last forward with `hidden`: float32 memoryview [n_embd], or [n_scores] with `scores`.

        Valid until the next forward.
        """
        if not 0 <= i < self.n_outputs or not self.is_hidden:
            raise EngineError(f"there is no row {i} of hidden states")
        return <const float[:self.width]>(self.output_rows + <size_t>i * self.width)

    def clear(self, cells, rows=()):
        """Write zeros into these cells, and these rows of layers with a window.

        Masked attention multiplies their contents, which may be NaN, by zero.

        Does nothing where no layer has a mask, or after `close`.
        """
        if self.masked and not self.closed:
            self.execution.cache.clear(array("i", sorted(cells)), array("i", sorted(rows)))

    def close(self):
        """Release the graph, before the cache and the devices are freed. Everything else then raises
        SessionClosedError."""
        self.closed, self.n_outputs, self.context, self.shape = True, 0, None, None

    cdef object _rope_lengths(self):
        cdef size_t n_long = 0
        for is_long in self.uses_long_rope:
            n_long += is_long != 0
        return "short" if n_long == 0 else "long" if n_long == self.uses_long_rope.size() else "mixed"

    cdef tuple _active(self):
        # The adapters that any row uses.
        return tuple(sorted({adapter for adapters in self.adapters for adapter, _ in adapters}))

    cdef int _check_open(self) except -1:
        if self.closed:
            raise SessionClosedError("the model was closed")
        return 0

    cdef int _check(self, ggml_status status) except -1:
        if status == GGML_STATUS_FAILED and set(self.execution.backends) != {"cpu"}:
            # The device's memory cannot be trusted after this, and it may not work again.
            raise DeviceError(f"a device failed{because()}")
        return ok(status, "computing the batch")

    # --- one batch's arrays

    cdef int _fill(self, rows) except -1:
        cdef int n_outputs = 0, n_new, n_past, p, n_logits, second, slot
        cdef int32_t token
        cdef Sequence sequence
        cdef array table
        cdef const int32_t* cells
        self.tokens.clear()
        self.positions.clear()
        self.cells.clear()
        self.outputs.clear()
        self.uses_long_rope.clear()
        self.adapters = []
        self.token_type_ids.clear()
        self.paged.sequences.clear()
        for tokens, table, n_past, n_logits, is_long, second, adapters, slot in rows:
            n_new = len(tokens)
            if n_past < 0 or n_new == 0 or len(table) - n_past < n_new or table.ob_descr.itemsize != sizeof(int32_t):
                raise EngineError(f"{len(table)} cells for {n_past} + {n_new} tokens")
            if self.n_slots and not 0 <= slot < self.n_slots:
                raise EngineError(f"slot {slot} is not one of {self.n_slots}")
            self.adapters.append(adapters)
            sequence.slot = slot
            cells = <const int32_t*>table.data.as_voidptr
            sequence.cells, sequence.n_past, sequence.n_new = cells, n_past, n_new
            sequence.row = <int>self.tokens.size()
            p = n_past
            for token in tokens:
                if not 0 <= token < self.n_vocab:
                    raise EngineError(f"token {token} is not in the vocabulary of {self.n_vocab}")
                if not 0 <= cells[p] < self.n_cells:
                    raise EngineError(f"cell {cells[p]} is not in the cache of {self.n_cells}")
                self.tokens.push_back(token)
                self.positions.push_back(p)
                self.uses_long_rope.push_back(1.0 if is_long else 0.0)
                self.token_type_ids.push_back(0 < second <= p)
                self.cells.push_back(cells[p])
                p += 1
            self.paged.sequences.push_back(sequence)
            if not -1 <= n_logits <= n_new:
                raise EngineError(f"{n_logits} rows of logits are requested of {n_new} tokens")
            if n_logits < 0:
                self.outputs.push_back(sequence.row)
                n_outputs += 1
                continue
            for p in range(<int>self.tokens.size() - n_logits, <int>self.tokens.size()):
                self.outputs.push_back(p)
            n_outputs += n_logits
        if not 0 < <int>self.tokens.size() <= self.max_batch_tokens:
            raise EngineError(f"a batch of {self.tokens.size()} tokens; the limit is {self.max_batch_tokens}")
        self._pad()
        self._fill_windows()
        return n_outputs

    cdef int _reach(self) except -1:
        # How many positions before a token layers with a window see.
        return 0 if self.execution.cache.windows is None else self.execution.cache.windows.reach

    cdef int _fill_windows(self) except -1:
        # The same sequences with the rows of layers with a window.
        cdef int p
        cdef Sequence s
        self.window_rows.clear()
        if self.n_rows == 0:
            return 0
        self.paged.fill_windows(self.execution.cache.windows.row_of, self.n_rows, self._reach())
        for s in self.paged.windows:
            for p in range(s.n_past, s.n_past + s.n_new):
                self.window_rows.push_back(s.cells[p])
        return 0

    cdef void _pad(self) noexcept:
        # Products of repacked weights take rows by fours and the rest one by one, each with a pass over the
        # weights: two or three left over are cheaper as four. The last row is computed again as padding.
        cdef int n = <int>self.tokens.size(), rest = n % self.row_multiple
        cdef Sequence again
        if rest * 2 < self.row_multiple or n - rest + self.row_multiple > self.max_batch_tokens:
            return
        again = self.paged.sequences.back()
        again.n_past += again.n_new - 1
        again.n_new = 1
        again.slot = -1
        for again.row in range(n, n - rest + self.row_multiple):
            self.tokens.push_back(self.tokens.back())
            self.positions.push_back(self.positions.back())
            self.uses_long_rope.push_back(self.uses_long_rope.back())
            self.token_type_ids.push_back(self.token_type_ids.back())
            self.cells.push_back(self.cells.back())
            self.paged.sequences.push_back(again)

    cdef int _write_inputs(self, int n_kv, int n_rows) except -1:
        cdef array constant
        context = self.context
        _set(context.tokens, self.tokens.data(), self.tokens.size() * 4)
        _set(context.positions, self.positions.data(), self.positions.size() * 4)
        _set(context.cells, self.cells.data(), self.cells.size() * 8)
        _set(context.window_rows, self.window_rows.data(), self.window_rows.size() * 8)
        if context.type_ids is not None:
            _set(context.type_ids, self.token_type_ids.data(), self.token_type_ids.size() * 4)
        if context.output_ids is not None:
            _set(context.output_ids, self.outputs.data(), self.outputs.size() * 4)
        if context.temperature_rows is not None:
            self._fill_temperatures()
            _set(context.temperature_rows, self.scales.data(), self.scales.size() * 4)
        for kind, tensor in context.rows_of.items():
            constant = array("f", [is_long == (kind == "long") for is_long in self.uses_long_rope])
            _set(tensor, constant.data.as_voidptr, len(constant) * 4)
        for adapter, tensor in context.adapter_rows.items():
            self._fill_scales(adapter)
            _set(tensor, self.scales.data(), self.scales.size() * 4)
        for values, tensor in context.constants.items():  # ggml reuses the memory of inputs during a computation
            constant = array("f", values)
            _set(tensor, constant.data.as_voidptr, len(constant) * 4)
        for kind, tensor in context.masks.items():
            self._fill_mask(n_rows if kind.windowed else n_kv, kind)
            _set(tensor, self.mask.data(), self.mask.size() * 2)
        return 0

    cdef int _fill_temperatures(self) except -1:
        # By which the queries of each row are multiplied, see `HParams.temperature_scale`.
        cdef int32_t position
        cdef int length = self.arch.hp.temperature_length, offset = self.arch.hp.temperature_offset
        cdef double scale = self.arch.hp.temperature_scale
        self.scales.clear()
        for position in self.positions:
            self.scales.push_back(1.0 + scale * log((position + offset) // length + 1))
        return 0

    cdef int _fill_scales(self, int adapter) except -1:
        # Padding continues the last sequence.
        cdef size_t i
        cdef float scale = 0.0
        self.scales.clear()
        for i in range(self.paged.sequences.size()):
            if i < <size_t>len(self.adapters):
                scale = dict(self.adapters[i]).get(adapter, 0.0)
            self.scales.insert(self.scales.end(), self.paged.sequences[i].n_new, scale)
        return 0

    cdef int _fill_mask(self, int n_kv, kind) except -1:
        # Row r attends to cell c if c holds a position of its sequence, within its window and, if causal, not after r.
        cdef size_t i
        cdef int window = kind.window
        cdef bint alibi = kind.alibi, causal = kind.causal, chunked = kind.chunked, windowed = kind.windowed
        cdef int r, p, first, end, position, back = window - 1 if causal else window // 2
        cdef uint16_t* row
        cdef Sequence s
        self.mask.assign(self.tokens.size() * n_kv, MINUS_INFINITY)
        for i in range(self.paged.sequences.size()):
            s = self.paged.windows[i] if windowed else self.paged.sequences[i]
            for r in range(s.n_new):
                row = self.mask.data() + <size_t>(s.row + r) * n_kv
                position = s.n_past + r
                first = max(0, position - back) if window > 0 else 0
                if chunked:
                    first = position - position % window
                end = position + 1 if causal else s.n_past + s.n_new
                if window > 0 and not causal:
                    end = min(end, position + back + 1)
                for p in range(first, end):
                    row[s.cells[p]] = ggml_fp32_to_fp16(-abs(position - p)) if alibi else 0
        return 0

    def mask_rows(self, rows, int n_kv, int window=0, bint causal=True, bint chunked=False):
        """The mask for `rows` as lists of bools [row][cell]; for tests and debugging."""
        self._fill(rows)
        self._fill_mask(n_kv, Mask(window, False, causal, chunked))
        return [[self.mask[r * n_kv + c] == 0 for c in range(n_kv)] for r in range(self.tokens.size())]

    cdef int _read_outputs(self, int n_outputs) except -1:
        cdef Tensor outputs = self.context.outputs
        cdef size_t size = <size_t>n_outputs * self.width
        if outputs.ptr.buffer != NULL and ggml_backend_buffer_is_host(outputs.ptr.buffer):
            self.output_rows = <const float*>outputs.ptr.data
        else:
            self.host_logits.resize(size)
            with nogil:
                ggml_backend_tensor_get(outputs.ptr, self.host_logits.data(), 0, size * sizeof(float))
            self.output_rows = self.host_logits.data()
        self.n_outputs = n_outputs
        return 0


cdef int _span(int n_cells, int limit) noexcept:
    # Rounded up, so that the graph can be reused for many batches.
    pad = <int>MASK_PAD
    return min((n_cells + pad - 1) // pad * pad, limit)


cdef int _highest_cell(vector[Sequence]& sequences, int reach) noexcept:
    # One more than the highest number; reach: positions before a token that it sees.
    cdef int highest = 0, p
    cdef Sequence s
    for s in sequences:
        for p in range(max(0, s.n_past - reach), s.n_past + s.n_new):
            highest = max(highest, s.cells[p] + 1)
    return highest


cdef int _set(Tensor tensor, const void* data, size_t size) except -1:
    # An input that no operation reads was given no memory.
    if tensor.ptr.buffer != NULL:
        ggml_backend_tensor_set(tensor.ptr, data, 0, size)
    return 0
