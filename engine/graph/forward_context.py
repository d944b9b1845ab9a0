"""One batch's graph: its inputs, the KV writes, and which attention each layer uses.

KV is written by `set_rows` at index inputs, so a graph does not depend on positions and the same one
serves every step of the same shape.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from engine.cache.kv_cache import KVCache
from engine.ggml.operations import Context
from engine.ggml.tensor import F16, F32, I32, I64, Graph, row_size
from engine.graph.ops.activation import op as gelu
from engine.nn.hparams import Architecture, ByLength, HParams, Rope

NODES_PER_LAYER = 128  # what the largest block needs, with room, besides its experts; see `n_nodes`
MASK_PAD = 256  # kernels of some devices want the KV length in multiples of it


def n_nodes(hp: HParams) -> int:
    """Most tensors of one batch's graph. The sum over the used experts takes two for each."""
    return (NODES_PER_LAYER + 2 * hp.n_expert_used) * hp.n_layer + 64


Lengths = Literal["short", "long", "mixed"]


class Mask(NamedTuple):
    """What a mask says: F16 [n_kv, rows], 0 where a row sees a cell, with ALiBi minus their distance."""

    window: int
    alibi: bool
    causal: bool


class ForwardContext:
    """What an architecture sees while it builds the graph of one batch.

    tokens, positions: I32 [n_tokens]; cells: I64 [n_tokens], the cache rows to write.
    attention: per layer, "paged" (own kernel, CPU), "flash" or "explicit" (with masks).
    backends: per layer, the name of its device's backend; on "cpu" our own kernels may be used.
    n_kv: cache rows that masks span, a multiple of MASK_PAD or the whole cache; 0 when all layers are paged.
    lengths: of the batch's sequences, where factors are `ByLength`. hidden, scores: see `Architecture.build`.
    """

    def __init__(
        self,
        size: int,
        cache: KVCache,
        paged: Any,
        attention: list[str],
        backends: list[str],
        n_tokens: int,
        n_outputs: int,
        n_kv: int,
        lengths: Lengths,
        hidden: bool,
        scores: bool,
    ) -> None:
        # A full context is an error, a full graph an abort: so the graph has room for all of the context.
        self.ctx: Any = Context(size, graph_size=size)
        self.graph: Graph = self.ctx.graph(size)
        self.cache, self.paged, self.attention, self.backends = cache, paged, attention, backends
        self.n_tokens, self.n_outputs, self.n_kv = n_tokens, n_outputs, n_kv
        self.lengths, self.hidden, self.scores = lengths, hidden, scores
        self.tokens = self.ctx.input(I32, (n_tokens,), "tokens")
        self.positions = self.ctx.input(I32, (n_tokens,), "positions")
        self.cells = self.ctx.input(I64, (n_tokens,), "cells")
        self.output_ids = self.ctx.input(I32, (n_outputs,), "outputs") if 0 < n_outputs < n_tokens else None
        # F32 [1, 1, n_tokens]: 1 for rows of sequences of this kind, else 0.
        self.rows_of: dict[Lengths, Any] = {}
        if lengths == "mixed":
            self.rows_of["short"] = self.ctx.input(F32, (1, 1, n_tokens), "rows.short")
            self.rows_of["long"] = self.ctx.input(F32, (1, 1, n_tokens), "rows.long")
        self.masks: dict[Mask, Any] = {}
        self.constants: dict[tuple[float, ...], Any] = {}
        self.sentences: Any = None
        self.outputs: Any = None
        self._stored: dict[int, tuple[Any, Any]] = {}

    def rotate(self, x: Any, rope: Rope, factors: Any) -> Any:
        """x [head_dim, heads, rows] by the positions. factors: a tensor, `ByLength`, or None."""
        ctx = self.ctx
        if not isinstance(factors, ByLength):
            return ctx.rope(x, self.positions, rope, factors)
        if self.lengths == "mixed":  # both ways; times one and times zero are exact
            parts = (
                ctx.mul(ctx.rope(x, self.positions, rope, factors.short), self.rows_of["short"]),
                ctx.mul(ctx.rope(x, self.positions, rope, factors.long), self.rows_of["long"]),
            )
            return ctx.add(*parts)
        return ctx.rope(x, self.positions, rope, getattr(factors, self.lengths))

    def sentence_ids(self) -> Any:
        """I32 [n_tokens]: 0, or 1 for rows of the second of two sentences."""
        if self.sentences is None:
            self.sentences = self.ctx.input(I32, (self.n_tokens,), "sentences")
        return self.sentences

    def store(self, layer: int, k: Any, v: Any) -> None:
        """Write k [dk, heads_kv, rows] and v [dv, heads_kv, rows] into the cache of `layer`."""
        stored = []
        for table, rows in ((self.cache.k[layer], k), (self.cache.v[layer], v)):
            n, heads, n_rows, _ = rows.shape
            flat = (
                self.ctx.reshape(rows, n * heads, n_rows)
                if rows.contiguous
                else self.ctx.cont_2d(rows, n * heads, n_rows)
            )
            written = self.ctx.set_rows(table, flat, self.cells)
            self.graph.add(written)  # before anything that reads the cache
            stored.append(written)
        self._stored[layer] = stored[0], stored[1]

    def outputs_of(self, x: Any) -> Any:
        """Only the rows of x [n, rows] that logits are wanted of."""
        return x if self.output_ids is None else self.ctx.get_rows(x, self.output_ids)

    def attend(
        self,
        layer: int,
        q: Any,
        scale: float,
        *,
        window: int = 0,
        softcap: float = 0.0,
        max_bias: float = 0.0,
        sinks: Any = None,
        causal: bool = True,
    ) -> Any:
        """q [dk, heads, rows] over what `store` wrote and the cells before it -> [dv * heads, rows].

        sinks: F32 [heads], one more score for each softmax, of a value of zero (GPT-OSS).
        """
        ctx, n_tokens, heads = self.ctx, self.n_tokens, q.shape[1]
        k, v = self._stored[layer]
        dk = q.shape[0]
        n_kv_heads = k.shape[0] // dk
        dv = v.shape[0] // n_kv_heads
        kind = self.attention[layer]
        if kind == "paged":
            out = self.paged.op(ctx, layer, q, k, v, dv, scale, softcap, max_bias, window, sinks, causal)
            return ctx.reshape(out, dv * heads, n_tokens)
        mask = self._mask(Mask(window, max_bias > 0, causal))
        q = ctx.permute(q, 0, 2, 1)  # [dk, rows, heads]
        k = self._heads(k, dk, n_kv_heads)
        v = self._heads(v, dv, n_kv_heads)
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

    def _heads(self, table: Any, d: int, n_heads: int) -> Any:
        """The first n_kv cells as [d, heads, n_kv]."""
        return self.ctx.view(table, (d, n_heads, self.n_kv), (row_size(table.type, d), table.strides[1]))

    def _mask(self, kind: Mask) -> Any:
        # F16 serves flash attention and softmax alike.
        if kind not in self.masks:
            name = f"mask.{kind.window}{'.alibi' * kind.alibi}{'' if kind.causal else '.all'}"
            self.masks[kind] = self.ctx.input(F16, (self.n_kv, self.n_tokens), name)
        return self.masks[kind]

    def constant(self, values: tuple[float, ...]) -> Any:
        """F32 [n] of these numbers."""
        if values not in self.constants:
            name = f"constant.{len(self.constants)}"
            self.constants[values] = self.ctx.input(F32, (len(values),), name)
        return self.constants[values]

    def activate(self, layer: int, name: str, x: Any, up: Any = None) -> Any:
        """act(x), or act(x) * up. name: silu, gelu (tanh form), gelu_erf, relu, sigmoid; swiglu_oai."""
        if self.backends[layer] == "cpu" and name.startswith("gelu"):
            return gelu(self.ctx, name, x, up)
        if self.backends[layer] == "rpc" and name == "gelu":  # a CPU's would go through a table of halves
            return self.ctx.gelu_of_parts(x) if up is None else self.ctx.mul(self.ctx.gelu_of_parts(x), up)
        if up is None:
            return self.ctx.activation(x, name)
        return self.ctx.gated(name, x, up)


def build(
    arch: Architecture,
    cache: KVCache,
    paged: Any,
    attention: list[str],
    backends: list[str],
    n_tokens: int,
    n_outputs: int,
    n_kv: int,
    lengths: Lengths = "short",
    hidden: bool = False,
    scores: bool = False,
) -> ForwardContext:
    """The graph of a batch of `n_tokens` rows, `n_outputs` of which want logits F32 [n_vocab, n_outputs].

    hidden: they want hidden states F32 [n_embd, n_outputs] instead. scores: with `hidden`, what the head for
    ranking makes of these, F32 [n_scores, n_outputs].
    """
    size = n_nodes(arch.hp)
    step = ForwardContext(
        size, cache, paged, attention, backends, n_tokens, n_outputs, n_kv, lengths, hidden, scores
    )
    outputs = arch.build(step)
    if outputs is not None:
        if outputs.type != F32:
            outputs = step.ctx.cast(outputs, F32)
        step.outputs = step.ctx.output(outputs)
        step.outputs.name = "outputs"
        step.graph.add(step.outputs)
    return step
