"""The parts that layers are made of. Shapes in ggml order; rows = tokens of the batch.

Each block is bound once (names, shapes, optional parts) and then called to add itself to a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from engine.nn.binder import Binder, Norm
from engine.nn.hparams import HParams

HeadNorm = Callable[[Binder, str, tuple[int, ...], int], Norm]


class Attention:
    """Projection, rotation, cache and attention of one layer: [n_embd, rows] -> [n_embd, rows].

    One fused matrix (Q, K, V rows in this order) or three, whichever the file has; biases likewise.
    qk_norm: "head" norms each head, weights [head_dim] or, with `own_weights`, [head_dim, heads]; "row" norms
    the whole projection at once. sinks: see `ForwardContext.attend`.
    Order: product, bias, clamp, norm, rotation.
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        rope_factors: Any = None,
        qk_norm: Literal["head", "row"] | None = None,
        norm: HeadNorm | None = None,
        own_weights: bool = False,
        sinks: bool = False,
    ) -> None:
        self.hp, self.layer, self.rope_factors = hp, layer, rope_factors
        self.rope = hp.rope_of(layer)
        self.n_head, self.n_head_kv = hp.n_head[layer], hp.n_head_kv[layer]
        dk, dv = hp.head_dim_k, hp.head_dim_v
        n_q, n_k, n_v = self.n_head * dk, self.n_head_kv * dk, self.n_head_kv * dv
        self.split = n_q, n_k, n_v
        blk = f"blk.{layer}"
        self.fused = binder.has(f"{blk}.attn_qkv.weight")
        if self.fused:
            self.qkv = binder.linear(f"{blk}.attn_qkv", hp.n_embd, n_q + n_k + n_v, layer)
        else:
            self.q = binder.linear(f"{blk}.attn_q", hp.n_embd, n_q, layer)
            self.k = binder.linear(f"{blk}.attn_k", hp.n_embd, n_k, layer)
            self.v = binder.linear(f"{blk}.attn_v", hp.n_embd, n_v, layer)
        self.qk_norm = qk_norm
        if qk_norm is not None:
            assert norm is not None
            self.norms = []
            for part, heads in (("q", self.n_head), ("k", self.n_head_kv)):
                shape = (dk * heads,) if qk_norm == "row" else (dk, heads) if own_weights else (dk,)
                self.norms.append(norm(binder, f"{blk}.attn_{part}_norm", shape, layer))
        self.sinks = None
        if sinks:
            self.sinks = binder.tensor(f"{blk}.attn_sinks.weight", (self.n_head,), "add", layer)
        self.out = binder.linear(f"{blk}.attn_output", self.n_head * dv, hp.n_embd, layer)

    def project(self, ctx: Any, x: Any) -> list[Any]:
        """q, k, v as [heads * head_dim, rows], perhaps views of one product."""
        if not self.fused:
            parts = [self.q(ctx, x), self.k(ctx, x), self.v(ctx, x)]
            return [self.clamp(ctx, part) for part in parts]
        qkv = self.clamp(ctx, self.qkv(ctx, x))
        row, begin, parts = qkv.strides[1], 0, []
        for n in self.split:
            parts.append(ctx.view(qkv, (n, x.shape[1]), (row,), 4 * begin))
            begin += n
        return parts

    def clamp(self, ctx: Any, x: Any) -> Any:
        limit = self.hp.clamp_qkv
        return ctx.clamp(x, -limit, limit) if limit else x

    def __call__(self, step: Any, x: Any) -> Any | None:
        """None for the last layer of a batch that wants no logits: its cache is filled, no more is needed."""
        ctx, hp, layer = step.ctx, self.hp, self.layer
        q, k, v = self.project(ctx, x)
        if self.qk_norm == "row":
            q, k = self.norms[0](ctx, q), self.norms[1](ctx, k)
        q = heads(ctx, q, hp.head_dim_k, self.n_head)
        k = heads(ctx, k, hp.head_dim_k, self.n_head_kv)
        v = heads(ctx, v, hp.head_dim_v, self.n_head_kv)
        if self.qk_norm == "head":
            q, k = self.norms[0](ctx, q), self.norms[1](ctx, k)
        if self.rope is not None:
            factors = step.constant(self.rope.factors) if self.rope.factors else self.rope_factors
            q = step.rotate(q, self.rope, factors)
            k = step.rotate(k, self.rope, factors)
        step.store(layer, k, v)
        if layer == hp.n_layer - 1 and step.n_outputs == 0:
            return None
        attended = step.attend(
            layer,
            q,
            hp.kq_scale,
            window=hp.window(layer),
            softcap=hp.attention_softcap,
            max_bias=hp.max_bias,
            sinks=self.sinks,
            causal=hp.causal,
        )
        return self.out(ctx, attended)


def heads(ctx: Any, x: Any, size: int, n: int) -> Any:
    """[size * n, rows] as [size, n, rows]."""
    if x.contiguous:
        return ctx.reshape(x, size, n, x.shape[1])
    return ctx.view(x, (size, n, x.shape[1]), (4 * size, x.strides[1]))


class FeedForward:
    """[n_embd, rows] -> [n_embd, rows].

    gate "split": down(act(gate x) * up x) (Shazeer 2020, arXiv 2002.05202), "fused": the same with the rows
    of gate and up in one matrix, None: down(act(up x)).
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        activation: str = "silu",
        gate: Literal["split", "fused"] | None = "split",
        suffix: str = "",
        n_ff: int = 0,
    ) -> None:
        blk, n_ff = f"blk.{layer}", n_ff or hp.n_ff[layer]
        self.layer, self.activation, self.n_ff, self.fused = layer, activation, n_ff, gate == "fused"
        n_up = 2 * n_ff if self.fused else n_ff
        self.gate = None
        if gate == "split":
            self.gate = binder.linear(f"{blk}.ffn_gate{suffix}", hp.n_embd, n_ff, layer)
        self.up = binder.linear(f"{blk}.ffn_up{suffix}", hp.n_embd, n_up, layer)
        self.down = binder.linear(f"{blk}.ffn_down{suffix}", n_ff, hp.n_embd, layer)

    def __call__(self, step: Any, x: Any) -> Any:
        ctx = step.ctx
        if self.gate is not None:
            hidden = step.activate(self.layer, self.activation, self.gate(ctx, x), self.up(ctx, x))
        elif self.fused:
            both = self.up(ctx, x)
            rows, stride = both.shape[1], both.strides[1]
            gate = ctx.view(both, (self.n_ff, rows), (stride,))
            up = ctx.view(both, (self.n_ff, rows), (stride,), 4 * self.n_ff)
            hidden = step.activate(self.layer, self.activation, gate, up)
        else:
            hidden = step.activate(self.layer, self.activation, self.up(ctx, x))
        return self.down(ctx, hidden)
