# cython: embedsignature=True
"""The CPU's own recurrent layers, as operations that graphs can use.

Like attention they read the batch from memory that stays in place. They write the states of its sequences, so
each must be added to the graph, also where nothing reads its output.
"""

from libc.stdint cimport int64_t

from engine.errors import GgmlError
from engine.ggml.operations cimport Context
from engine.ggml.tensor cimport Tensor
from engine.graph.ops.packed cimport vectors
from engine.libggml.ggml cimport (
    GGML_N_TASKS_MAX, GGML_TYPE_F32, ggml_custom_4d, ggml_custom_op_t, ggml_is_contiguous, ggml_tensor,
)

cdef enum:
    MAX_KERNEL = 8
    MAX_KEY = 1024


cdef class RecurrentStates:
    """The states of all slots, F32 [elements, slots], and the parameters of each layer's operations.

    offsets: where each layer's part of a slot begins, in elements. A layer has one convolution, which comes
    first in its part, and at most one scan.
    """

    def __init__(self, PagedAttention paged not None, int n_layers, Tensor table=None, list offsets=None):
        self.table, self.paged = table, paged
        self.offsets = list(offsets or [0] * n_layers)
        self.convolutions.resize(n_layers)
        self.scans.resize(n_layers)
        self.deltas.resize(n_layers)

    @property
    def n_slots(self):
        return 0 if self.table is None else self.table.shape[1]

    def convolution(self, Context ctx not None, int layer, Tensor x not None, Tensor weight not None,
                    Tensor bias=None, bint silu=False):
        """x F32 [channels, rows], weight [kernel, channels], bias [channels] -> [channels, rows].

        silu: of the sum with the bias.
        """
        cdef Convolution* parameters = &self.convolutions[self._check(layer)]
        cdef int64_t channels = x.ptr.ne[0], kernel = weight.ptr.ne[0]
        _rows(x, "convolution")
        _plain(weight, kernel * channels, "convolution")
        if not 2 <= kernel <= MAX_KERNEL:
            raise GgmlError(f"convolution: a kernel of {kernel}; it must be 2 to {MAX_KERNEL}")
        if bias is not None:
            _plain(bias, channels, "convolution")
        self._fits(layer, (kernel - 1) * channels)
        parameters.batch, parameters.silu = &self.paged.batch, silu
        parameters.offset = self.offsets[layer]
        args = [x, weight, self.table] if bias is None else [x, weight, self.table, bias]
        return _op(ctx, channels, x.ptr.ne[1], args, vectors().convolution, parameters)

    def scan(self, Context ctx not None, int layer, int64_t after, int d_state, list inputs not None,
             Tensor bias=None):
        """The scan of Mamba; its state lies `after` so many elements of the layer's part.

        inputs: x F32 [head_dim * heads, rows], dt [heads, rows], A [d_state | 1, heads], B and C
        [d_state * groups, rows], D [heads]. bias [heads]: of dt. -> [head_dim * heads, rows]
        """
        cdef Scan* parameters = &self.scans[self._check(layer)]
        cdef Tensor x, dt, a, b, c, d
        x, dt, a, b, c, d = inputs
        cdef int64_t heads = dt.ptr.ne[0], n = x.ptr.ne[0], rows = x.ptr.ne[1]
        for tensor in (x, dt, b, c):
            _rows(tensor, "scan")
            if tensor.shape[1] != rows:
                raise GgmlError(f"scan: {x!r} and {tensor!r} differ in rows")
        _plain(a, heads * (d_state if a.ptr.ne[0] == d_state else 1), "scan")
        _plain(d, heads, "scan")
        if bias is not None:
            _plain(bias, heads, "scan")
        if (n % heads or d_state <= 0 or b.ptr.ne[0] % d_state or b.ptr.ne[0] != c.ptr.ne[0]
                or heads % (b.ptr.ne[0] // d_state)):
            raise GgmlError(f"scan: {x!r}, {dt!r}, {b!r} and {c!r} do not fit together")
        self._fits(layer, after + n * d_state)
        parameters.batch, parameters.d_state = &self.paged.batch, d_state
        parameters.offset = self.offsets[layer] + after
        args = [x, dt, a, b, c, d, self.table] + ([] if bias is None else [bias])
        return _op(ctx, n, rows, args, vectors().scan, parameters)

    def delta(self, Context ctx not None, int layer, int64_t after, tuple keys not None, list inputs not None,
              bint tiled=False):
        """The gated delta rule; see `scan` for `after`. keys: (elements of a key's head, heads of keys).

        inputs: rows of q, k and v F32 [n, rows], a and b [heads, rows], A and bias [heads]. tiled: which key
        head a head of values uses: h % heads of keys, else neighbours share one. -> [d_v * heads, rows]
        """
        cdef Delta* parameters = &self.deltas[self._check(layer)]
        cdef Tensor qkv, a, b, rate, bias
        cdef int64_t d = keys[0], key_heads = keys[1]
        qkv, a, b, rate, bias = inputs
        cdef int64_t heads = a.ptr.ne[0], rows = qkv.ptr.ne[1], n = qkv.ptr.ne[0] - 2 * d * key_heads
        for tensor in (qkv, a, b):
            _rows(tensor, "delta")
            if tensor.shape[1] != rows:
                raise GgmlError(f"delta: {qkv!r} and {tensor!r} differ in rows")
        _plain(rate, heads, "delta")
        _plain(bias, heads, "delta")
        if not 0 < d <= MAX_KEY or key_heads <= 0 or heads % key_heads or n <= 0 or n % heads or b.ptr.ne[0] != heads:
            raise GgmlError(f"delta: {qkv!r}, {a!r} and {b!r} do not fit together")
        self._fits(layer, after + n * d)
        parameters.batch, parameters.d, parameters.n_key_heads = &self.paged.batch, d, key_heads
        parameters.offset, parameters.tiled = self.offsets[layer] + after, tiled
        args = [qkv, a, b, rate, bias, self.table]
        return _op(ctx, n, rows, args, vectors().delta, parameters)

    cdef size_t _check(self, int layer) except? 0:
        if self.table is None or not 0 <= layer < <int>self.convolutions.size():
            raise GgmlError(f"there is no recurrent state of layer {layer}")
        return layer

    cdef int _fits(self, int layer, int64_t n) except -1:
        cdef int64_t begin = self.offsets[layer]
        end = min([offset for offset in self.offsets if offset > begin], default=self.table.shape[0])
        if n > end - begin:
            raise GgmlError(f"a state of {n} elements does not fit the {end - begin} of layer {layer}")
        return 0


cdef int _rows(Tensor x, str name) except -1:
    if x.ptr.type != GGML_TYPE_F32 or x.ptr.nb[0] != sizeof(float) or x.ptr.ne[2] * x.ptr.ne[3] != 1:
        raise GgmlError(f"{name}: {x!r} must be F32 with contiguous rows")
    return 0


cdef int _plain(Tensor x, int64_t n, str name) except -1:
    if (x.ptr.type != GGML_TYPE_F32 or not ggml_is_contiguous(x.ptr)
            or x.ptr.ne[0] * x.ptr.ne[1] * x.ptr.ne[2] * x.ptr.ne[3] != n):
        raise GgmlError(f"{name}: {x!r} must be F32 with {n} elements")
    return 0


cdef Tensor _op(Context ctx, int64_t n, int64_t rows, list args, ggml_custom_op_t function, void* parameters):
    cdef ggml_tensor* sources[8]
    cdef int i
    for i in range(len(args)):
        sources[i] = (<Tensor>args[i]).ptr
    ctx.reserve()
    return ctx.wrap(ggml_custom_4d(
        ctx.ptr, GGML_TYPE_F32, n, rows, 1, 1, sources, <int>len(args), function, GGML_N_TASKS_MAX, parameters))
