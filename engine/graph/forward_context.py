"""The graph of one batch: its inputs, the KV writes, and the attention that each layer uses.

KV is written by `set_rows` at index inputs, so a graph does not depend on positions: all batches of one
shape share it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol

from engine.cache.kv_cache import KVCache
from engine.ggml.operations import Context
from engine.ggml.tensor import F16, F32, I32, I64, Tensor, row_size
from engine.graph.ops.activation import op as gelu
from engine.graph.ops.attention import PagedAttention
from engine.graph.ops.recurrence import RecurrentStates
from engine.hparams import HParams, Rope

ADAPTER_NODES = 8  # of an adapter of one matrix
MATRICES_PER_LAYER = 14  # the most that an adapter can adapt
NODES_PER_LAYER = 128  # an upper bound for the largest block, besides its experts; see `n_nodes`
MASK_PAD = 256  # kernels of some devices want the KV length in multiples of it


def n_nodes(hp: HParams, n_adapters: int = 0) -> int:
    """An upper bound for the number of tensors in one batch's graph; each used expert adds two."""
    per_adapter = ADAPTER_NODES * (MATRICES_PER_LAYER * hp.n_layer + 4)
    of_streams = hp.n_streams * (3 * hp.n_streams + 16) if hp.n_streams > 1 else 0
    per_layer = NODES_PER_LAYER + 2 * hp.n_expert_used + of_streams
    return per_layer * hp.n_layer + 64 + of_streams + per_adapter * n_adapters


class LongRopeFactors(NamedTuple):
    """F32 [n_dims / 2]: for up to `HParams.original_context_length` tokens, and for longer sequences."""

    short: Tensor
    long: Tensor


RopeFactors = Tensor | LongRopeFactors | None
RopeLengths = Literal["short", "long", "mixed"]


class BatchShape(NamedTuple):
    """What a graph depends on.

    n_tokens: rows of the batch; n_outputs: rows whose logits are wanted. n_kv: cache rows that masks span, a
    multiple of MASK_PAD or the whole cache; 0 when all layers are paged. n_rows: the same of the rows of
    layers with a window, where these are fewer. rope_lengths: which of `LongRopeFactors` the sequences use.
    hidden, scores: the outputs are hidden states or scores, see
    `Architecture.build`. adapters: the numbers of the LoRA adapters that any row uses.
    """

    n_tokens: int
    n_outputs: int
    n_kv: int
    rope_lengths: RopeLengths = "short"
    hidden: bool = False
    scores: bool = False
    adapters: tuple[int, ...] = ()
    n_rows: int = 0


class Execution(NamedTuple):
    """How a model's layers are computed, the same for all batches.

    attention: per layer, "paged" (our CPU kernel), "flash" or "explicit" (both with masks), "none" for a
    layer without. backends: per layer, the name of its device's backend; "cpu" may use our kernels.
    states: recurrent states, which our kernels compute on the CPU for all layers.
    """

    cache: KVCache
    paged: PagedAttention
    attention: list[str]
    backends: list[str]
    states: RecurrentStates


class Network(Protocol):
    """What is built into a graph: an `engine.nn.architecture.Architecture` bound to its tensors."""

    hp: HParams

    def build(self, forward: ForwardContext) -> Tensor | None: ...


class Mask(NamedTuple):
    """A kind of mask, F16 [n_kv, rows]: 0 (ALiBi: minus the distance) where a row sees a cell, else -inf.

    windowed: of layers whose cache has rows for windows, [n_rows, rows].
    """

    window: int
    alibi: bool
    causal: bool
    chunked: bool = False
    windowed: bool = False


class ForwardContext:
    """The context in which an architecture builds the graph of one batch; shapes in ggml order.

    tokens, positions: I32 [n_tokens]; cells: I64 [n_tokens], the cache rows to write, and window_rows those
    of layers with a window.
    """

    def __init__(self, hp: HParams, execution: Execution, shape: BatchShape) -> None:
        # A full context raises, a full graph aborts the process: so the graph has room for the whole context.
        size = n_nodes(hp, len(shape.adapters))
        self.ctx = Context(size, graph_size=size)
        self.graph = self.ctx.graph(size)
        self.hp, self.execution, self.shape = hp, execution, shape
        n_tokens, n_outputs = shape.n_tokens, shape.n_outputs
        self.tokens = self.ctx.input(I32, (n_tokens,), "tokens")
        self.positions = self.ctx.input(I32, (n_tokens,), "positions")
        self.cells = self.ctx.input(I64, (n_tokens,), "cells")
        self.window_rows = self.ctx.input(I64, (n_tokens,), "window_rows")
        self.output_ids = self.ctx.input(I32, (n_outputs,), "outputs") if 0 < n_outputs < n_tokens else None
        # F32 [1, 1, n_tokens]: 1 for rows of sequences of this kind, else 0.
        self.rows_of: dict[RopeLengths, Tensor] = {}
        if shape.rope_lengths == "mixed":
            self.rows_of["short"] = self.ctx.input(F32, (1, 1, n_tokens), "rows.short")
            self.rows_of["long"] = self.ctx.input(F32, (1, 1, n_tokens), "rows.long")
        # By adapter, F32 [1, n_tokens]: its scale for each row, 0 for rows that do not use it.
        self.adapter_rows = {i: self.ctx.input(F32, (1, n_tokens), f"lora.{i}") for i in shape.adapters}
        self._output_scales: dict[int, Tensor] = {}
        self.masks: dict[Mask, Tensor] = {}
        self.constants: dict[tuple[float, ...], Tensor] = {}
        self.temperature_rows: Tensor | None = None  # see `temperatures`
        self.type_ids: Tensor | None = None  # see `token_type_ids`
        self.outputs: Tensor | None = None
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def rotate(self, x: Tensor, rope: Rope, factors: RopeFactors) -> Tensor:
        """RoPE applied to x [head_dim, heads, rows] at the batch's positions."""
        ctx = self.ctx
        if not isinstance(factors, LongRopeFactors):
            return ctx.rope(x, self.positions, rope, factors)
        if self.shape.rope_lengths == "mixed":  # both ways; products with one and zero are exact
            short = ctx.mul(ctx.rope(x, self.positions, rope, factors.short), self.rows_of["short"])
            return ctx.add(
                short, ctx.mul(ctx.rope(x, self.positions, rope, factors.long), self.rows_of["long"])
            )
        is_long = self.shape.rope_lengths == "long"
        return ctx.rope(x, self.positions, rope, factors.long if is_long else factors.short)

    def token_type_ids(self) -> Tensor:
        """I32 [n_tokens]: 1 for rows of the second of two sequences, else 0 (as in BERT)."""
        if self.type_ids is None:
            self.type_ids = self.ctx.input(I32, (self.shape.n_tokens,), "token_type_ids")
        return self.type_ids

    def temperatures(self) -> Tensor:
        """The factor for Q of each row, see `HParams.temperature_scale`: F32 [1, 1, n_tokens]."""
        if self.temperature_rows is None:
            self.temperature_rows = self.ctx.input(F32, (1, 1, self.shape.n_tokens), "temperatures")
        return self.temperature_rows

    def store(self, layer: int, k: Tensor, v: Tensor | None = None) -> None:
        """Write k [dk, heads_kv, rows] and v [dv, heads_kv, rows] into the cache of `layer`.

        Without v its values are the first part of k (`HParams.latent`).
        """
        cache = self.execution.cache
        at = self.window_rows if cache.windowed[layer] else self.cells
        keys = self._write(cache.k[layer], k, at)
        if v is None:
            values = self.ctx.view(keys, (self.hp.head_dim_v, keys.shape[1]), (keys.strides[1],))
        else:
            values = self._write(cache.v[layer], v, at)
        self._stored[layer] = keys, values

    def _write(self, table: Tensor, rows: Tensor, at: Tensor) -> Tensor:
        n, heads, n_rows, _ = rows.shape
        reshape = self.ctx.reshape if rows.contiguous else self.ctx.cont_2d
        written = self.ctx.set_rows(table, reshape(rows, n * heads, n_rows), at)
        self.graph.add(written)  # before anything that reads the cache
        return written

    def outputs_of(self, x: Tensor) -> Tensor:
        """The rows of x [n, rows] whose outputs are requested: [n, n_outputs]."""
        return x if self.output_ids is None else self.ctx.get_rows(x, self.output_ids)

    def adapter_scales(self, adapter: int, n_rows: int) -> Tensor:
        """The scales of an adapter for all rows, or for the rows whose outputs are requested: F32 [1,
        n_rows].
        """
        if n_rows == self.shape.n_tokens:
            return self.adapter_rows[adapter]
        if adapter not in self._output_scales:
            self._output_scales[adapter] = self.outputs_of(self.adapter_rows[adapter])
        return self._output_scales[adapter]

    def attend(self, layer: int, q: Tensor, sinks: Tensor | None = None) -> Tensor:
        """q [dk, heads, rows] over what `store` wrote and the cells before it -> [dv * heads, rows].

        sinks: F32 [heads], one more score for each softmax, of a value of zero (GPT-OSS).
        """
        ctx, hp, n_tokens = self.ctx, self.hp, self.shape.n_tokens
        source = hp.kv_source(layer)
        (dk, dv), heads, kv_heads = hp.dims(source), hp.n_head[layer], hp.n_head_kv[source]
        scale, softcap, max_bias, window = hp.kq_scale, hp.attention_softcap, hp.max_bias, hp.window(layer)
        k, v = self._stored[source]
        kind, windowed = self.execution.attention[source], self.execution.cache.windowed[source]
        if kind == "paged":
            out = self.execution.paged.op(
                ctx, layer, q, k, v, dv, scale, softcap, max_bias, window, sinks, hp.causal, hp.chunked
            )
            return ctx.reshape(out, dv * heads, n_tokens)
        mask = self._mask(Mask(window, max_bias > 0, hp.causal, hp.chunked and window > 0, windowed))
        q = ctx.permute(q, 0, 2, 1)  # [dk, rows, heads]
        n_kv = mask.shape[0]
        k, v = self._heads(k, dk, kv_heads, n_kv), self._heads(v, dv, kv_heads, n_kv)
        if kind == "flash":
            out = ctx.flash_attention(
                q, ctx.permute(k, 0, 2, 1), ctx.permute(v, 0, 2, 1), mask, scale, max_bias, softcap, sinks
            )
            return ctx.reshape(out, dv * heads, n_tokens)
        scores = ctx.mul_mat(ctx.permute(k, 0, 2, 1), q, precise=True)  # [n_kv, rows, heads]
        if softcap:
            scores, scale = ctx.scale(ctx.tanh(ctx.scale(scores, scale / softcap)), softcap), 1.0
        weights = ctx.softmax(scores, mask, scale, max_bias, sinks)
        transposed = ctx.cont(ctx.permute(v, 1, 2, 0))  # [n_kv, dv, heads_kv]
        out = ctx.mul_mat(transposed, weights)  # [dv, rows, heads]
        return ctx.cont_2d(ctx.permute(out, 0, 2, 1), dv * heads, n_tokens)

    def _heads(self, table: Tensor, head_dim: int, n_heads: int, n_kv: int) -> Tensor:
        """The first n_kv cells as [head_dim, heads, n_kv]."""
        strides = (row_size(table.type, head_dim), table.strides[1])
        return self.ctx.view(table, (head_dim, n_heads, n_kv), strides)

    def _mask(self, kind: Mask) -> Tensor:
        # F16 serves flash attention and softmax alike.
        if kind not in self.masks:
            marks = ".chunks" * kind.chunked + ".alibi" * kind.alibi + ".all" * (not kind.causal)
            name = f"mask.{kind.window}{marks}"
            n_kv = self.shape.n_rows if kind.windowed else self.shape.n_kv
            self.masks[kind] = self.ctx.input(F16, (n_kv, self.shape.n_tokens), name)
        return self.masks[kind]

    def constant(self, values: tuple[float, ...]) -> Tensor:
        """A constant: F32 [n] of these numbers."""
        if values not in self.constants:
            name = f"constant.{len(self.constants)}"
            self.constants[values] = self.ctx.input(F32, (len(values),), name)
        return self.constants[values]

    def activate(self, layer: int, name: str, x: Tensor, up: Tensor | None = None) -> Tensor:
        """act(x), or act(x) * up.

        name: silu, gelu (tanh form), gelu_erf, relu, relu_squared, xielu, sigmoid, swiglu_oai.
        """
        if name == "xielu":
            return self._xielu(x, *self.hp.xielu[layer])
        if name == "relu_squared":
            x = self.ctx.activation(x, "relu")
            x = self.ctx.mul(x, x)
            return x if up is None else self.ctx.mul(x, up)
        backend = self.execution.backends[layer]
        if backend == "cpu" and name.startswith("gelu"):
            return gelu(self.ctx, name, x, up)
        if backend == "rpc" and name == "gelu":  # a CPU at the other end would read it from an F16 table
            return self.ctx.gelu_of_parts(x) if up is None else self.ctx.mul(self.ctx.gelu_of_parts(x), up)
        if up is None:
            return self.ctx.activation(x, name)
        return self.ctx.gated(name, x, up)

    def _xielu(self, x: Tensor, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Tensor:
        """p x^2 + beta x where x > 0, else n (exp(min(x, eps)) - 1 - x) + beta x (arXiv 2411.13010).

        p = softplus(alpha_p), n = beta + softplus(alpha_n). Of operations that all devices have.
        """
        ctx, n, p = self.ctx, beta + math.log1p(math.exp(alpha_n)), math.log1p(math.exp(alpha_p))
        above, below = ctx.activation(x, "relu"), ctx.clamp(x, -1e4, eps)
        # exp(y) = sigmoid(y) / sigmoid(-y); what is above zero adds n (exp(eps) - 1), less than it rounds.
        power = ctx.div(ctx.activation(below, "sigmoid"), ctx.activation(ctx.scale(below, -1.0), "sigmoid"))
        negative = ctx.add(
            ctx.add(ctx.scale(power, n), self.constant((-n,))),
            ctx.scale(ctx.add(x, ctx.scale(above, -1.0)), -n),
        )
        return ctx.add(ctx.add(ctx.scale(ctx.mul(above, above), p), negative), ctx.scale(x, beta))


def build(network: Network, execution: Execution, shape: BatchShape) -> ForwardContext:
    """The graph of a batch of this shape; its outputs are F32."""
    forward = ForwardContext(network.hp, execution, shape)
    outputs = network.build(forward)
    if outputs is not None:
        if outputs.type != F32:
            outputs = forward.ctx.cast(outputs, F32)
        outputs.name = "outputs"
        forward.outputs = forward.ctx.output(outputs)
        forward.graph.add(outputs)
    return forward
