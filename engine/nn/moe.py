"""Mixture of experts: a router chooses a few feed-forward networks for each row."""

from __future__ import annotations

from typing import Literal

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.feed_forward import FeedForward


class MixtureOfExperts:
    """n_expert_used of n_expert gated networks per row (Jiang 2024, arXiv 2401.04088).

    weights "softmax": of the router over all experts; "selected": over the selected ones. renormalise: the
    weights of the selected experts are divided by their sum. shared: one more network for every row, weighted
    by the sigmoid of a router of its own (Qwen2-MoE).
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        activation: str = "silu",
        weights: Literal["softmax", "selected"] = "softmax",
        renormalise: bool = True,
        shared: bool = False,
    ) -> None:
        # Keywords are what architectures differ in; each is used by a few of them.
        blk, n_ff = f"blk.{layer}", hp.n_ff_expert or hp.n_ff[layer]
        self.hp, self.layer, self.activation = hp, layer, activation
        self.weights, self.renormalise = weights, renormalise
        self.router = binder.linear(f"{blk}.ffn_gate_inp", hp.n_embd, hp.n_expert, layer)
        self.gate = binder.experts(f"{blk}.ffn_gate_exps", hp.n_embd, n_ff, hp.n_expert, layer)
        self.up = binder.experts(f"{blk}.ffn_up_exps", hp.n_embd, n_ff, hp.n_expert, layer)
        self.down = binder.experts(f"{blk}.ffn_down_exps", n_ff, hp.n_embd, hp.n_expert, layer)
        self.shared = None
        if shared:
            self.shared = FeedForward(
                binder, hp, layer, activation=activation, suffix="_shexp", n_ff=hp.n_ff_shared
            )
            self.shared_router = binder.linear(f"{blk}.ffn_gate_inp_shexp", hp.n_embd, 1, layer)

    def choose(self, forward: ForwardContext, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each row, I32 [n_expert_used, rows], and their weights, [1, n_expert_used, rows]."""
        ctx, n, used, rows = forward.ctx, self.hp.n_expert, self.hp.n_expert_used, x.shape[1]
        scores = self.router(forward, x)  # [n_expert, rows]
        if self.weights == "softmax":
            scores = ctx.softmax(scores)
        ids = ctx.top_k(scores, used)
        weights = ctx.reshape(ctx.get_rows(ctx.reshape(scores, 1, n, rows), ids), used, rows)
        if self.weights == "selected":
            weights = ctx.softmax(weights)
        elif self.renormalise:
            # Clamped as in llama.cpp: a sum that underflows in F16 must not divide by zero.
            total = ctx.clamp(ctx.sum_rows(weights), 6.103515625e-5, float("inf"))
            weights = ctx.div(weights, total)
        return ids, ctx.reshape(weights, 1, used, rows)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """[n_embd, rows] -> [n_embd, rows]"""
        ctx, n_embd, rows = forward.ctx, self.hp.n_embd, x.shape[1]
        ids, weights = self.choose(forward, x)
        each = ctx.reshape(x, n_embd, 1, rows)
        gate, up = self.gate(forward, each, ids), self.up(forward, each, ids)
        hidden = forward.activate(self.layer, self.activation, gate, up)
        out = ctx.mul(self.down(forward, hidden, ids), weights)  # [n_embd, n_expert_used, rows]
        parts = [
            ctx.view(out, (n_embd, rows), (out.strides[2],), i * out.strides[1])
            for i in range(self.hp.n_expert_used)
        ]
        total = ctx.cont(parts[0])
        for part in parts[1:]:
            total = ctx.add(total, part)
        if self.shared is not None:
            share = ctx.activation(self.shared_router(forward, x), "sigmoid")  # [1, rows]
            total = ctx.add(total, ctx.mul(self.shared(forward, x), share))
        return total
