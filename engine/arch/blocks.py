"""The parts that decoders are made of. Shapes in ggml order; rows = tokens of the batch.

Each block is bound once (names, shapes, optional parts) and then called to add itself to a graph.
"""

from __future__ import annotations

from typing import Any

from engine.arch.slots import Binder, Linear
from engine.arch.spec import HParams


class Attention:
    """Projection, rotation, cache and attention of one layer: [n_embd, rows] -> [n_embd, rows]."""

    def __init__(self, binder: Binder, hp: HParams, layer: int, rope_factors: Any = None) -> None:
        self.hp, self.layer, self.rope_factors = hp, layer, rope_factors
        self.n_head, self.n_head_kv = hp.n_head[layer], hp.n_head_kv[layer]
        n_q, n_k = self.n_head * hp.head_dim_k, self.n_head_kv * hp.head_dim_k
        n_v = self.n_head_kv * hp.head_dim_v
        blk = f"blk.{layer}"
        self.fused = binder.has(f"{blk}.attn_qkv.weight")
        if self.fused:
            self.qkv = binder.linear(f"{blk}.attn_qkv", hp.n_embd, n_q + n_k + n_v, layer)
        else:
            self.q = binder.linear(f"{blk}.attn_q", hp.n_embd, n_q, layer)
            self.k = binder.linear(f"{blk}.attn_k", hp.n_embd, n_k, layer)
            self.v = binder.linear(f"{blk}.attn_v", hp.n_embd, n_v, layer)
        self.out = binder.linear(f"{blk}.attn_output", self.n_head * hp.head_dim_v, hp.n_embd, layer)

    def project(self, ctx: Any, x: Any) -> tuple[Any, Any, Any]:
        """q, k [head_dim_k, heads, rows] and v [head_dim_v, heads_kv, rows]."""
        hp, rows = self.hp, x.shape[1]
        dk, dv, n_q, n_kv = hp.head_dim_k, hp.head_dim_v, self.n_head, self.n_head_kv
        if not self.fused:
            return (
                ctx.reshape(self.q(ctx, x), dk, n_q, rows),
                ctx.reshape(self.k(ctx, x), dk, n_kv, rows),
                ctx.reshape(self.v(ctx, x), dv, n_kv, rows),
            )
        qkv = self.qkv(ctx, x)
        row, item = qkv.strides[1], 4
        k_at, v_at = n_q * dk * item, (n_q + n_kv) * dk * item
        return (
            ctx.view(qkv, (dk, n_q, rows), (dk * item, row)),
            ctx.view(qkv, (dk, n_kv, rows), (dk * item, row), k_at),
            ctx.view(qkv, (dv, n_kv, rows), (dv * item, row), v_at),
        )

    def __call__(self, step: Any, x: Any) -> Any | None:
        """None for the last layer of a batch that wants no logits: its cache is filled, no more is needed."""
        ctx, hp = step.ctx, self.hp
        q, k, v = self.project(ctx, x)
        if hp.rope is not None:
            q = ctx.rope(q, step.positions, hp.rope, self.rope_factors)
            k = ctx.rope(k, step.positions, hp.rope, self.rope_factors)
        step.store(self.layer, k, v)
        if self.layer == hp.n_layer - 1 and step.n_outputs == 0:
            return None
        return self.out(ctx, step.attend(self.layer, q, hp.kq_scale, window=hp.window))


class FeedForward:
    """SwiGLU: down(silu(gate x) * up x), [n_embd, rows] -> [n_embd, rows]."""

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, n_ff = f"blk.{layer}", hp.n_ff[layer]
        self.gate: Linear = binder.linear(f"{blk}.ffn_gate", hp.n_embd, n_ff, layer)
        self.up: Linear = binder.linear(f"{blk}.ffn_up", hp.n_embd, n_ff, layer)
        self.down: Linear = binder.linear(f"{blk}.ffn_down", n_ff, hp.n_embd, layer)

    def __call__(self, step: Any, x: Any) -> Any:
        ctx = step.ctx
        return self.down(ctx, ctx.swiglu(self.gate(ctx, x), self.up(ctx, x)))


class MixtureOfExperts:
    """n_expert_used of n_expert SwiGLUs per row, weighted by the renormalised softmax of the router.

    (Jiang 2024, arXiv 2401.04088.)
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, n_ff, n = f"blk.{layer}", hp.n_ff[layer], hp.n_expert
        self.hp = hp
        self.router = binder.linear(f"{blk}.ffn_gate_inp", hp.n_embd, n, layer)
        self.gate = binder.tensor(f"{blk}.ffn_gate_exps.weight", (hp.n_embd, n_ff, n), "mul_mat_id", layer)
        self.up = binder.tensor(f"{blk}.ffn_up_exps.weight", (hp.n_embd, n_ff, n), "mul_mat_id", layer)
        self.down = binder.tensor(f"{blk}.ffn_down_exps.weight", (n_ff, hp.n_embd, n), "mul_mat_id", layer)

    def __call__(self, step: Any, x: Any) -> Any:
        ctx, n_embd, rows, used = step.ctx, self.hp.n_embd, x.shape[1], self.hp.n_expert_used
        probabilities = ctx.softmax(self.router(ctx, x))  # [n_expert, rows]
        chosen = ctx.top_k(probabilities, used)  # [used, rows]
        weights = ctx.get_rows(
            ctx.reshape(probabilities, 1, self.hp.n_expert, rows), chosen
        )  # [1, used, rows]
        weights = ctx.reshape(weights, used, rows)
        # Clamped as llama.cpp does: a sum that underflows in F16 must not divide by zero.
        total = ctx.clamp(ctx.sum_rows(weights), 6.103515625e-5, float("inf"))
        weights = ctx.reshape(ctx.div(weights, total), 1, used, rows)
        each = ctx.reshape(x, n_embd, 1, rows)
        hidden = ctx.swiglu(ctx.mul_mat_id(self.gate, each, chosen), ctx.mul_mat_id(self.up, each, chosen))
        out = ctx.mul(ctx.mul_mat_id(self.down, hidden, chosen), weights)  # [n_embd, used, rows]
        total = None
        for i in range(used):
            part = ctx.view(out, (n_embd, rows), (out.strides[2],), i * out.strides[1])
            total = ctx.cont(part) if total is None else ctx.add(total, part)
        return total
