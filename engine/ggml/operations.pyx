# cython: embedsignature=True
"""Operations on tensors, as methods of the context that they build into. Shapes are in ggml order.

Arguments that would fail a GGML_ASSERT, which ends the process, raise GgmlError before the call.
"""

from libc.stdint cimport int64_t

from engine.errors import GgmlError
from engine.ggml.tensor cimport Storage, Tensor
from engine.ggml.tensor import row_size
from engine.libggml.ggml cimport (
    GGML_PREC_F32, GGML_ROPE_TYPE_NEOX, GGML_ROPE_TYPE_NORMAL, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_I32,
    GGML_TYPE_I64, GGML_UNARY_OP_GELU, GGML_UNARY_OP_GELU_ERF, GGML_UNARY_OP_RELU, GGML_UNARY_OP_SIGMOID,
    GGML_UNARY_OP_SILU, ggml_add, ggml_add_id, ggml_argsort_top_k, ggml_cast, ggml_clamp, ggml_concat, ggml_cont,
    ggml_cont_2d, ggml_div, ggml_flash_attn_ext, ggml_flash_attn_ext_add_sinks, ggml_get_rows, ggml_is_contiguous,
    ggml_mul, ggml_mul_mat, ggml_mul_mat_id, ggml_nbytes, ggml_norm, ggml_permute, ggml_prec_set_acc, ggml_repeat_4d,
    ggml_reshape_2d, ggml_reshape_3d, ggml_rms_norm, ggml_rope_ext, ggml_scale, ggml_set_rows,
    ggml_soft_max_add_sinks, ggml_soft_max_ext, ggml_sum_rows, ggml_swiglu_oai, ggml_swiglu_split, ggml_tanh,
    ggml_type, ggml_unary, ggml_unary_op, ggml_view_2d, ggml_view_3d,
)

ROPE_MODES = {"interleaved": <int>GGML_ROPE_TYPE_NORMAL, "neox": <int>GGML_ROPE_TYPE_NEOX}
cdef dict _UNARY = {
    "silu": <int>GGML_UNARY_OP_SILU, "gelu": <int>GGML_UNARY_OP_GELU, "gelu_erf": <int>GGML_UNARY_OP_GELU_ERF,
    "relu": <int>GGML_UNARY_OP_RELU, "sigmoid": <int>GGML_UNARY_OP_SIGMOID,
}


cdef class Context(Storage):
    """Tensors and the operations on them; [] in the docstrings are shapes."""

    def add(self, Tensor a not None, Tensor b not None):
        """a + b, b repeated to the shape of a."""
        _repeats(b, a, "add")
        self.reserve()
        return self.wrap(ggml_add(self.ptr, a.ptr, b.ptr))

    def mul(self, Tensor a not None, Tensor b not None):
        """a * b, b repeated to the shape of a."""
        _repeats(b, a, "mul")
        self.reserve()
        return self.wrap(ggml_mul(self.ptr, a.ptr, b.ptr))

    def div(self, Tensor a not None, Tensor b not None):
        """a / b, b repeated to the shape of a."""
        _repeats(b, a, "div")
        self.reserve()
        return self.wrap(ggml_div(self.ptr, a.ptr, b.ptr))

    def scale(self, Tensor a not None, float factor):
        self.reserve()
        return self.wrap(ggml_scale(self.ptr, a.ptr, factor))

    def sum_rows(self, Tensor a not None):
        """[n, ...] -> [1, ...]"""
        self.reserve()
        return self.wrap(ggml_sum_rows(self.ptr, a.ptr))

    def clamp(self, Tensor a not None, float minimum, float maximum):
        self.reserve()
        return self.wrap(ggml_clamp(self.ptr, a.ptr, minimum, maximum))

    def tanh(self, Tensor a not None):
        self.reserve()
        return self.wrap(ggml_tanh(self.ptr, a.ptr))

    def activation(self, Tensor a not None, str name):
        """silu, gelu (tanh form through an f16 table), gelu_erf, relu, sigmoid."""
        self.reserve()
        return self.wrap(ggml_unary(self.ptr, a.ptr, <ggml_unary_op><int>_UNARY[name]))

    def swiglu(self, Tensor gate not None, Tensor up not None):
        """silu(gate) * up (Shazeer 2020, arXiv 2002.05202)."""
        _same(gate, up, "swiglu")
        self.reserve()
        return self.wrap(ggml_swiglu_split(self.ptr, gate.ptr, up.ptr))

    def gated(self, str name, Tensor gate not None, Tensor up not None):
        """act(gate) * up (Shazeer 2020, arXiv 2002.05202); swiglu_oai: clamped as in GPT-OSS."""
        if name == "silu":
            return self.swiglu(gate, up)
        if name == "swiglu_oai":
            _same(gate, up, name)
            self.reserve()
            return self.wrap(ggml_swiglu_oai(self.ptr, gate.ptr, up.ptr, 1.702, 7.0))
        return self.mul(self.activation(gate, name), up)

    def gelu_of_parts(self, Tensor a not None):
        """GELU's tanh form as a * sigmoid(2 sqrt(2 / pi) (a + 0.044715 a^3)), all in float32."""
        cube = self.mul(self.mul(a, a), a)
        inner = self.add(self.scale(a, 1.5957691216057308), self.scale(cube, 1.5957691216057308 * 0.044715))
        return self.mul(self.activation(inner, "sigmoid"), a)

    def norm(self, Tensor a not None, float eps):
        """(a - mean) / sqrt(variance + eps) over ne0 (Ba 2016, arXiv 1607.06450)."""
        self.reserve()
        return self.wrap(ggml_norm(self.ptr, a.ptr, eps))

    def add_id(self, Tensor a not None, Tensor b not None, Tensor ids not None):
        """a [n, n_used, rows] + b [n, n_expert] of the experts in ids I32 [n_used, rows]."""
        _require(a.ptr.ne[0] == b.ptr.ne[0] and a.ptr.ne[1] == ids.ptr.ne[0] and a.ptr.ne[2] == ids.ptr.ne[1]
                 and ids.ptr.type == GGML_TYPE_I32, "add_id", a, b)
        self.reserve()
        return self.wrap(ggml_add_id(self.ptr, a.ptr, b.ptr, ids.ptr))

    def rms_norm(self, Tensor a not None, float eps):
        self.reserve()
        return self.wrap(ggml_rms_norm(self.ptr, a.ptr, eps))

    def mul_mat(self, Tensor weight not None, Tensor x not None, bint precise=False):
        """weight [k, m], x [k, n] -> [m, n]; heads broadcast over ne2 and ne3."""
        _require(weight.ptr.ne[0] == x.ptr.ne[0] and x.ptr.ne[2] % weight.ptr.ne[2] == 0
                 and x.ptr.ne[3] % weight.ptr.ne[3] == 0 and weight.ptr.nb[0] <= weight.ptr.nb[1],
                 "mul_mat", weight, x)
        self.reserve()
        product = self.wrap(ggml_mul_mat(self.ptr, weight.ptr, x.ptr))
        if precise:
            ggml_prec_set_acc(product.ptr, GGML_PREC_F32)
        return product

    def mul_mat_id(self, Tensor experts not None, Tensor x not None, Tensor ids not None):
        """experts [k, m, n_expert], x [k, n_used | 1, n], ids I32 [n_used, n] -> [m, n_used, n]."""
        _require(experts.ptr.ne[0] == x.ptr.ne[0] and ids.ptr.ne[1] == x.ptr.ne[2]
                 and ids.ptr.type == GGML_TYPE_I32 and ids.ptr.ne[0] % x.ptr.ne[1] == 0, "mul_mat_id", experts, x)
        self.reserve()
        return self.wrap(ggml_mul_mat_id(self.ptr, experts.ptr, x.ptr, ids.ptr))

    def top_k(self, Tensor a not None, int k):
        """Indices of the k largest of each row, largest first: [n, m] -> I32 [k, m]."""
        _require(0 < k <= a.ptr.ne[0], "top_k", a, a)
        self.reserve()
        self.reserve()  # ggml builds it of two
        return self.wrap(ggml_argsort_top_k(self.ptr, a.ptr, k))

    def get_rows(self, Tensor table not None, Tensor ids not None):
        """table [n, rows], ids I32 [m] -> F32 [n, m]; also [1, E, n] by [k, n] -> [1, k, n]."""
        _require(ids.ptr.type == GGML_TYPE_I32 and table.ptr.ne[2] == ids.ptr.ne[1]
                 and table.ptr.ne[3] == ids.ptr.ne[2], "get_rows", table, ids)
        self.reserve()
        return self.wrap(ggml_get_rows(self.ptr, table.ptr, ids.ptr))

    def set_rows(self, Tensor table not None, Tensor rows not None, Tensor ids not None):
        """Write rows F32 [n, m, k] at ids I64 or I32 [m, k] of table [n, rows, k]; returns a view of the table."""
        _require(table.ptr.ne[0] == rows.ptr.ne[0] and rows.ptr.ne[1] == ids.ptr.ne[0]
                 and rows.ptr.ne[2] == table.ptr.ne[2] == ids.ptr.ne[1]
                 and ids.ptr.type in (GGML_TYPE_I64, GGML_TYPE_I32)
                 and rows.ptr.type == GGML_TYPE_F32, "set_rows", table, rows)
        self.reserve()
        return self.wrap(ggml_set_rows(self.ptr, table.ptr, rows.ptr, ids.ptr))

    def cast(self, Tensor a not None, int type):
        self.reserve()
        return self.wrap(ggml_cast(self.ptr, a.ptr, <ggml_type>type))

    def repeat(self, Tensor a not None, int64_t times):
        """The rows of a F32 [n, m], again and again: [n, m * times]."""
        _require(times > 0 and a.ptr.type == GGML_TYPE_F32 and a.ptr.nb[0] == sizeof(float) and a.ptr.ne[2] == 1
                 and a.ptr.ne[3] == 1, "repeat", a, a)
        self.reserve()
        return self.wrap(ggml_repeat_4d(self.ptr, a.ptr, a.ptr.ne[0], a.ptr.ne[1] * times, 1, 1))

    def concat(self, Tensor a not None, Tensor b not None):
        """a [n, ...] and b [m, ...] of one type side by side: [n + m, ...]."""
        _require(a.ptr.type == b.ptr.type and a.ptr.ne[1] == b.ptr.ne[1] and a.ptr.ne[2] == b.ptr.ne[2]
                 and a.ptr.ne[3] == b.ptr.ne[3], "concat", a, b)
        self.reserve()
        return self.wrap(ggml_concat(self.ptr, a.ptr, b.ptr, 0))

    def reshape(self, Tensor a not None, int64_t ne0, int64_t ne1, int64_t ne2=0):
        """Other dimensions over the same contiguous elements."""
        _require(ggml_is_contiguous(a.ptr) and ne0 * ne1 * (ne2 or 1) == _count(a), "reshape", a, a)
        self.reserve()
        if ne2:
            return self.wrap(ggml_reshape_3d(self.ptr, a.ptr, ne0, ne1, ne2))
        return self.wrap(ggml_reshape_2d(self.ptr, a.ptr, ne0, ne1))

    def view(self, Tensor a not None, tuple shape, tuple strides not None, size_t offset=0):
        """A window: shape (ne0, ne1[, ne2]), strides in bytes (nb1[, nb2]), offset in bytes."""
        _require(2 <= len(shape) <= 3 and len(strides) == len(shape) - 1, "view", a, a)
        cdef int64_t ne0 = shape[0], ne1 = shape[1], ne2 = shape[2] if len(shape) > 2 else 1
        cdef size_t nb1 = strides[0], nb2 = strides[1] if len(strides) > 1 else 0
        end = offset + (ne1 - 1) * nb1 + (ne2 - 1) * nb2 + row_size(a.type, ne0)
        size = offset + row_size(a.type, ne0) * ne1 * ne2  # a view has no more elements than what it looks at
        _require(ne0 > 0 and ne1 > 0 and ne2 > 0 and max(end, size) <= ggml_nbytes(a.ptr), "view", a, a)
        self.reserve()
        if len(shape) > 2:
            return self.wrap(ggml_view_3d(self.ptr, a.ptr, ne0, ne1, ne2, nb1, nb2, offset))
        return self.wrap(ggml_view_2d(self.ptr, a.ptr, ne0, ne1, nb1, offset))

    def permute(self, Tensor a not None, int axis0, int axis1, int axis2, int axis3=3):
        """Axis i of `a` becomes axis `axis_i` of the result."""
        if sorted((axis0, axis1, axis2, axis3)) != [0, 1, 2, 3]:
            raise GgmlError(f"permute: {(axis0, axis1, axis2, axis3)} are not the four axes")
        self.reserve()
        return self.wrap(ggml_permute(self.ptr, a.ptr, axis0, axis1, axis2, axis3))

    def cont(self, Tensor a not None):
        """The same elements, contiguous."""
        self.reserve()
        return self.wrap(ggml_cont(self.ptr, a.ptr))

    def cont_2d(self, Tensor a not None, int64_t ne0, int64_t ne1):
        _require(ne0 * ne1 == _count(a), "cont_2d", a, a)
        self.reserve()
        return self.wrap(ggml_cont_2d(self.ptr, a.ptr, ne0, ne1))

    def softmax(self, Tensor a not None, Tensor mask=None, float scale=1.0, float max_bias=0.0,
                Tensor sinks=None):
        """softmax(a * scale + mask * slope) over ne0 of a [n, m, heads]; mask [n, m] of F16 or F32."""
        if mask is not None:
            _require(mask.ptr.ne[0] == a.ptr.ne[0] and mask.ptr.ne[1] >= a.ptr.ne[1]
                     and ggml_is_contiguous(mask.ptr), "softmax", a, mask)
        elif max_bias > 0:
            raise GgmlError("softmax: ALiBi needs a mask")
        self.reserve()
        weights = self.wrap(
            ggml_soft_max_ext(self.ptr, a.ptr, mask.ptr if mask is not None else NULL, scale, max_bias))
        if sinks is not None:
            _require(sinks.ptr.ne[0] == a.ptr.ne[2] and sinks.ptr.type == GGML_TYPE_F32, "softmax", a, sinks)
            ggml_soft_max_add_sinks(weights.ptr, sinks.ptr)
        return weights

    def rope(self, Tensor a not None, Tensor positions not None, object rope, Tensor factors=None):
        """Rotary embedding of a [head_dim, heads, n] at positions I32 [n] (Su 2021, arXiv 2104.09864).

        rope: an `engine.hparams.Rope`. factors: F32 [n_dims / 2], divisors of the frequencies.
        """
        _require(positions.ptr.type == GGML_TYPE_I32 and positions.ptr.ne[0] == a.ptr.ne[2]
                 and 0 < rope.n_dims <= a.ptr.ne[0] and rope.n_dims % 2 == 0, "rope", a, positions)
        if factors is not None:
            _require(factors.ptr.ne[0] >= rope.n_dims // 2 and factors.ptr.type == GGML_TYPE_F32, "rope", a, factors)
        self.reserve()
        return self.wrap(ggml_rope_ext(
            self.ptr, a.ptr, positions.ptr, factors.ptr if factors is not None else NULL, rope.n_dims,
            ROPE_MODES[rope.mode], rope.n_ctx_orig, rope.freq_base, rope.freq_scale, rope.ext_factor,
            rope.attn_factor, rope.beta_fast, rope.beta_slow))

    def flash_attention(self, Tensor q not None, Tensor k not None, Tensor v not None, Tensor mask not None,
                        float scale, float max_bias=0.0, float softcap=0.0, Tensor sinks=None):
        """q [d, n, h], k [d, n_kv, h_kv], v [dv, n_kv, h_kv], mask F16 [n_kv, n] -> [dv, h, n].

        The parameters are those of ggml's operation (Dao 2022, arXiv 2205.14135).
        """
        _require(q.ptr.ne[0] == k.ptr.ne[0] and k.ptr.ne[1] == v.ptr.ne[1] and q.ptr.ne[2] % k.ptr.ne[2] == 0
                 and mask.ptr.ne[0] == k.ptr.ne[1] and mask.ptr.ne[1] >= q.ptr.ne[1]
                 and mask.ptr.type == GGML_TYPE_F16 and ggml_is_contiguous(mask.ptr), "flash_attention", q, k)
        self.reserve()
        attended = self.wrap(ggml_flash_attn_ext(self.ptr, q.ptr, k.ptr, v.ptr, mask.ptr, scale, max_bias, softcap))
        ggml_prec_set_acc(attended.ptr, GGML_PREC_F32)
        if sinks is not None:
            _require(sinks.ptr.ne[0] == q.ptr.ne[2] and sinks.ptr.type == GGML_TYPE_F32, "flash_attention", q, sinks)
            ggml_flash_attn_ext_add_sinks(attended.ptr, sinks.ptr)
        return attended


cdef int64_t _count(Tensor a):
    return a.ptr.ne[0] * a.ptr.ne[1] * a.ptr.ne[2] * a.ptr.ne[3]


cdef int _require(bint holds, str op, Tensor a, Tensor b) except -1:
    if not holds:
        raise GgmlError(f"{op}: {a!r} and {b!r} do not fit together")
    return 0


cdef int _repeats(Tensor small, Tensor big, str op) except -1:
    cdef int i
    for i in range(4):
        if big.ptr.ne[i] % small.ptr.ne[i]:
            raise GgmlError(f"{op}: {small!r} does not repeat into {big!r}")
    return 0


cdef int _same(Tensor a, Tensor b, str op) except -1:
    cdef int i
    for i in range(4):
        if a.ptr.ne[i] != b.ptr.ne[i]:
            raise GgmlError(f"{op}: {a!r} and {b!r} differ in shape")
    return 0
