"""Attention of one layer: projections, RoPE, KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext, RopeFactors
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.layers import Norm

HeadNorm = Callable[[Binder, str, tuple[int, ...], int], Norm]


class Attention:
    """[n_embd, rows] -> [n_embd, rows]: product, bias, clamp, norm, rotation, cache, attention, product.

    The file has Q, K and V in one matrix (rows in this order) or in three, with or without biases.
    qk_norm: "head" norms each head, with weights [head_dim] or, with `norm_per_head`, [head_dim, heads];
    "row" norms the whole projection at once. rotate_first: heads are normed after the rotation.
    sinks: see `ForwardContext.attend`. gated: each head of Q's matrix is followed by a gate, whose sigmoid
    multiplies the head's output (Qwen3-Next). norm_values: heads of V are normed without weights; a layer
    without a matrix of V takes the heads of K before these are normed (Gemma 4). in_pairs: elements of the
    heads of Q and K come as x[0], x[d / 2], x[1], … and are put in order, for "neox" (Bamba).
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        rope_factors: RopeFactors = None,
        qk_norm: Literal["head", "row"] | None = None,
        norm: HeadNorm | None = None,
        norm_per_head: bool = False,
        rotate_first: bool = False,
        sinks: bool = False,
        gated: bool = False,
        norm_values: bool = False,
        in_pairs: bool = False,
    ) -> None:
        # Keywords are what architectures differ in; each is used by a few of them.
        self.hp, self.layer, self.rope_factors = hp, layer, rope_factors
        self.rope = hp.rope_of(layer)
        self.n_head, self.n_head_kv = hp.n_head[layer], hp.n_head_kv[layer]
        self.dk, self.dv = dk, dv = hp.dims(layer)
        self.reads = hp.kv_source(layer) != layer  # another layer's keys and values
        self.norm_values, self.in_pairs = norm_values, in_pairs
        n_q, n_k, n_v = self.n_head * dk, self.n_head_kv * dk, self.n_head_kv * dv
        self.split = n_q, n_k, n_v
        blk = f"blk.{layer}"
        self.fused = binder.has(f"{blk}.attn_qkv.weight")
        if self.fused:
            self.qkv = binder.linear(f"{blk}.attn_qkv", hp.n_embd, n_q + n_k + n_v, layer)
        else:
            self.q = binder.linear(f"{blk}.attn_q", hp.n_embd, 2 * n_q if gated else n_q, layer)
            if not self.reads:
                self.k = binder.linear(f"{blk}.attn_k", hp.n_embd, n_k, layer)
            self.v = None
            if not self.reads and (not norm_values or binder.has(f"{blk}.attn_v.weight")):
                self.v = binder.linear(f"{blk}.attn_v", hp.n_embd, n_v, layer)
        self.qk_norm, self.rotate_first = qk_norm, rotate_first
        if qk_norm is not None:
            assert norm is not None
            self.norms = []
            for part, n_heads in (("q", self.n_head), ("k", self.n_head_kv))[: 1 if self.reads else 2]:
                shape = (dk * n_heads,) if qk_norm == "row" else (dk, n_heads) if norm_per_head else (dk,)
                self.norms.append(norm(binder, f"{blk}.attn_{part}_norm", shape, layer))
        self.gated = gated
        self.sinks = None
        if sinks:
            self.sinks = binder.tensor(f"{blk}.attn_sinks.weight", (self.n_head,), "add", layer)
        self.out = binder.linear(f"{blk}.attn_output", self.n_head * dv, hp.n_embd, layer)

    def project(self, forward: ForwardContext, x: Tensor) -> list[Tensor]:
        """q, k, v as [heads * head_dim, rows]; they may be views of one product."""
        ctx = forward.ctx
        if not self.fused:
            q, k = self.q(forward, x), self.k(forward, x)
            parts = [q, k, k if self.v is None else self.v(forward, x)]
            return [self.clamp(ctx, part) for part in parts]
        qkv = self.clamp(ctx, self.qkv(forward, x))
        stride, begin, parts = qkv.strides[1], 0, []
        for n in self.split:
            parts.append(ctx.view(qkv, (n, x.shape[1]), (stride,), 4 * begin))
            begin += n
        return parts

    def clamp(self, ctx: Context, x: Tensor) -> Tensor:
        limit = self.hp.clamp_qkv
        return ctx.clamp(x, -limit, limit) if limit else x

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """None for the last layer of a batch without outputs, where only the cache needs to be filled."""
        ctx, hp, layer = forward.ctx, self.hp, self.layer
        if self.reads:
            return self.read(forward, x)
        q, k, v = self.project(forward, x)
        if self.qk_norm == "row":
            q, k = self.norms[0](ctx, q), self.norms[1](ctx, k)
        if self.gated:
            q, gate = self.split_gate(ctx, q)
        else:
            q = split_heads(ctx, q, self.dk, self.n_head)
        k = split_heads(ctx, k, self.dk, self.n_head_kv)
        v = split_heads(ctx, v, self.dv, self.n_head_kv)
        if self.norm_values:
            v = ctx.rms_norm(v, hp.eps)
        if self.qk_norm == "head" and not self.rotate_first:
            q, k = self.norms[0](ctx, q), self.norms[1](ctx, k)
        if self.rope is not None:
            if self.in_pairs:
                q, k = in_order(ctx, q), in_order(ctx, k)
            factors = forward.constant(self.rope.factors) if self.rope.factors else self.rope_factors
            q = forward.rotate(q, self.rope, factors)
            k = forward.rotate(k, self.rope, factors)
        if hp.has_temperature(layer):
            q = ctx.mul(q, forward.temperatures())
        if self.qk_norm == "head" and self.rotate_first:
            q, k = self.norms[0](ctx, q), self.norms[1](ctx, k)
        forward.store(layer, k, v)
        if layer == hp.n_layer - 1 and forward.shape.n_outputs == 0:
            return None
        attended = forward.attend(layer, q, self.sinks)
        if self.gated:
            attended = ctx.mul(attended, ctx.activation(gate, "sigmoid"))
        return self.out(forward, attended)

    def read(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """Attention over the keys and values of another layer."""
        if self.layer == self.hp.n_layer - 1 and forward.shape.n_outputs == 0:
            return None
        q = self.norms[0](forward.ctx, split_heads(forward.ctx, self.q(forward, x), self.dk, self.n_head))
        if self.rope is not None:
            q = forward.rotate(q, self.rope, self.rope_factors)
        return self.out(forward, forward.attend(self.layer, q))

    def split_gate(self, ctx: Context, q: Tensor) -> tuple[Tensor, Tensor]:
        """[2 * head_dim * heads, rows] -> q [head_dim, heads, rows], gate [head_dim * heads, rows]"""
        d, n, rows, stride = self.dk, self.n_head, q.shape[1], q.strides[1]
        heads, gate = (ctx.view(q, (d, n, rows), (8 * d, stride), 4 * i * d) for i in range(2))
        return heads, ctx.cont_2d(gate, d * n, rows)


def split_heads(ctx: Context, x: Tensor, head_dim: int, n_heads: int) -> Tensor:
    """[head_dim * n_heads, rows] -> [head_dim, n_heads, rows]"""
    if x.contiguous:
        return ctx.reshape(x, head_dim, n_heads, x.shape[1])
    return ctx.view(x, (head_dim, n_heads, x.shape[1]), (4 * head_dim, x.strides[1]))


def in_order(ctx: Context, x: Tensor) -> Tensor:
    """[head_dim, heads, rows], of each head first the even elements, then the odd ones."""
    d, n_heads, rows = x.shape[:3]
    if not x.contiguous:  # a part of Q, K and V in one matrix
        x = ctx.cont(x)
    pairs = ctx.permute(ctx.reshape(x, 2, d // 2, n_heads * rows), 1, 0, 2)
    return ctx.reshape(ctx.cont(pairs), d, n_heads, rows)
