"""Mixture of experts: a router chooses a few feed-forward networks for each row."""

from __future__ import annotations

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.feed_forward import FeedForward

LOWEST = -1e30  # less than any merit of an expert
JITTER = 0.01  # of `sparsemixer`, which files do not say


class MixtureOfExperts:
    """n_expert_used of n_expert gated networks per row (Jiang 2024, arXiv 2401.04088).

    How they are chosen: `HParams.routing`; a file may have biases of the choice, which do not change the
    weights (`exp_probs_b`, DeepSeek-V3). shared: one more network for every row; gated: weighted by the
    sigmoid of a router of its own (Qwen2-MoE). weighs_input: the weights scale what experts read, not what
    they return (Llama 4). plain: networks without a gate, also the shared one (Nemotron 3). Where experts
    read narrower rows (`n_embd_expert`), one matrix before them and one behind them are for all experts.
    `ffn_down_exps.scale`, where a file has it, multiplies what each expert returns.
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        activation: str = "silu",
        shared: bool = False,
        gated: bool = True,
        weighs_input: bool = False,
        plain: bool = False,
    ) -> None:
        # Keywords are what architectures differ in; each is used by a few of them.
        blk, n_ff = f"blk.{layer}", hp.n_ff_expert or hp.n_ff[layer]
        self.hp, self.layer, self.activation = hp, layer, activation
        self.weighs_input = weighs_input
        self.router = binder.linear(f"{blk}.ffn_gate_inp", hp.n_embd, hp.n_expert, layer)
        self.bias = binder.optional(f"{blk}.exp_probs_b.bias", (hp.n_expert,), "add", layer)
        self.n_ff, self.fused = n_ff, binder.has(f"{blk}.ffn_gate_up_exps.weight")
        n, n_expert = hp.n_embd_expert or hp.n_embd, hp.n_expert
        self.narrow = self.widen = self.gate = None
        if hp.n_embd_expert:
            self.narrow = binder.linear(f"{blk}.ffn_latent_down", hp.n_embd, n, layer)
            self.widen = binder.linear(f"{blk}.ffn_latent_up", n, hp.n_embd, layer)
        if self.fused:
            self.up = binder.experts(f"{blk}.ffn_gate_up_exps", n, 2 * n_ff, n_expert, layer)
        else:
            if not plain:
                self.gate = binder.experts(f"{blk}.ffn_gate_exps", n, n_ff, n_expert, layer)
            self.up = binder.experts(f"{blk}.ffn_up_exps", n, n_ff, n_expert, layer)
        self.down = binder.experts(f"{blk}.ffn_down_exps", n_ff, n, n_expert, layer)
        self.scale = binder.optional(f"{blk}.ffn_down_exps.scale", (hp.n_expert,), "mul", layer)
        self.shared = self.shared_router = None
        if shared:
            self.shared = FeedForward(
                binder,
                hp,
                layer,
                activation=activation,
                gate=None if plain else "split",
                suffix="_shexp",
                n_ff=hp.n_ff_shared,
            )
        if shared and gated:
            self.shared_router = binder.linear(f"{blk}.ffn_gate_inp_shexp", hp.n_embd, 1, layer)

    def choose(self, forward: ForwardContext, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each row, I32 [n_expert_used, rows], and their weights, [1, n_expert_used, rows]."""
        ctx, n, used, rows = forward.ctx, self.hp.n_expert, self.hp.n_expert_used, x.shape[1]
        routing = self.hp.routing
        scores = self.router(forward, x)  # [n_expert, rows]
        if routing.weights == "softmax":
            scores = ctx.softmax(scores)
        elif routing.weights == "sigmoid":
            scores = ctx.activation(scores, "sigmoid")
        merits = scores if self.bias is None else ctx.add(scores, self.bias)
        if routing.n_groups > 1:
            merits = self.within_groups(ctx, merits)
        ids = ctx.top_k(merits, used)
        if routing.weights == "sparsemixer":
            return ids, self.mixed(ctx, scores)
        weights = ctx.reshape(ctx.get_rows(ctx.reshape(scores, 1, n, rows), ids), used, rows)
        if routing.weights == "selected":
            weights = ctx.softmax(weights)
        elif routing.renormalise:
            # Clamped as in llama.cpp: a sum that underflows in F16 must not divide by zero.
            total = ctx.clamp(ctx.sum_rows(weights), 6.103515625e-5, float("inf"))
            weights = ctx.div(weights, total)
        if routing.scale != 1.0:
            weights = ctx.scale(weights, routing.scale)
        if self.scale is not None:
            weights = ctx.mul(weights, self.scales(ctx, self.scale, ids))
        return ids, ctx.reshape(weights, 1, used, rows)

    def scales(self, ctx: Context, scale: Tensor, ids: Tensor) -> Tensor:
        """scale [n_expert] of the experts `ids`, [n_expert_used, rows]."""
        used, rows = ids.shape[:2]
        of_experts = ctx.reshape(scale, 1, self.hp.n_expert)
        return ctx.reshape(ctx.get_rows(of_experts, ctx.reshape(ctx.cont(ids), used * rows, 1)), used, rows)

    def mixed(self, ctx: Context, scores: Tensor) -> Tensor:
        """The two weights of `sparsemixer`, [1, 2, rows]."""
        n, rows, weights = self.hp.n_expert, scores.shape[1], []
        for _ in range(2):
            first = ctx.top_k(scores, 1)
            best = ctx.reshape(ctx.get_rows(ctx.reshape(scores, 1, n, rows), first), 1, rows)
            less = ctx.scale(best, -1.0)
            absolute = ctx.add(
                ctx.activation(scores, "relu"), ctx.activation(ctx.scale(scores, -1.0), "relu")
            )
            size = ctx.add(ctx.activation(ctx.add(absolute, less), "relu"), best)  # the larger of both
            behind = ctx.scale(ctx.add(scores, less), -1.0)
            excess = ctx.activation(ctx.add(behind, ctx.scale(size, -2 * JITTER)), "relu")
            near = ctx.softmax(ctx.add(scores, ctx.scale(excess, LOWEST)))
            weights.append(ctx.get_rows(ctx.reshape(near, 1, n, rows), first))
            # The second is chosen among the others.
            nothing = ctx.reshape(ctx.clamp(ctx.scale(best, 0.0), LOWEST, LOWEST), 1, 1, rows)
            others = ctx.set_rows(ctx.reshape(ctx.scale(scores, 1.0), 1, n, rows), nothing, first)
            scores = ctx.reshape(others, n, rows)
        pair = ctx.concat(*(ctx.reshape(weight, 1, rows) for weight in weights))
        return ctx.reshape(pair, 1, 2, rows)

    def within_groups(self, ctx: Context, merits: Tensor) -> Tensor:
        """merits [n_expert, rows], of which only those of the best groups stay."""
        routing, n, rows = self.hp.routing, self.hp.n_expert, merits.shape[1]
        groups, size, judged_by = routing.n_groups, n // routing.n_groups, routing.judged_by
        best = ctx.top_k(ctx.reshape(merits, size, groups * rows), judged_by)
        best = ctx.get_rows(ctx.reshape(merits, 1, size, groups * rows), best)
        totals = ctx.sum_rows(ctx.reshape(best, judged_by, groups * rows))
        ids = ctx.top_k(ctx.reshape(totals, groups, rows), routing.n_groups_used)
        grouped = ctx.reshape(merits, size, groups, rows)
        nothing = ctx.clamp(ctx.scale(grouped, 0.0), LOWEST, LOWEST)
        return ctx.reshape(ctx.set_rows(nothing, ctx.get_rows(grouped, ids), ids), n, rows)

    def __call__(self, forward: ForwardContext, x: Tensor, routed: Tensor | None = None) -> Tensor:
        """[n_embd, rows] -> [n_embd, rows]. routed: what the router reads, if not x."""
        ctx, rows = forward.ctx, x.shape[1]
        ids, weights = self.choose(forward, x if routed is None else routed)
        inner = x if self.narrow is None else self.narrow(forward, x)
        n = inner.shape[0]
        each = ctx.reshape(inner, n, 1, rows)
        if self.weighs_input:
            # Each row times each of its weights; a product with one inner dimension needs no repeated rows.
            used = self.hp.n_expert_used
            each = ctx.mul_mat(ctx.reshape(inner, 1, n, rows), ctx.reshape(weights, 1, used, rows))
        up = self.up(forward, each, ids)
        if self.fused:  # rows of gate and up in one matrix
            shape, strides = (self.n_ff, *up.shape[1:3]), up.strides[1:3]
            gate, up = ctx.view(up, shape, strides), ctx.view(up, shape, strides, 4 * self.n_ff)
            hidden = forward.activate(self.layer, self.activation, gate, up)
        elif self.gate is not None:
            hidden = forward.activate(self.layer, self.activation, self.gate(forward, each, ids), up)
        else:
            hidden = forward.activate(self.layer, self.activation, up)
        out = self.down(forward, hidden, ids)  # [n, n_expert_used, rows]
        if not self.weighs_input:
            out = ctx.mul(out, weights)
        parts = [
            ctx.view(out, (n, rows), (out.strides[2],), i * out.strides[1])
            for i in range(self.hp.n_expert_used)
        ]
        total = ctx.cont(parts[0])
        for part in parts[1:]:
            total = ctx.add(total, part)
        if self.widen is not None:
            total = self.widen(forward, total)
        if self.shared is not None:
            always = self.shared(forward, x)
            if self.shared_router is not None:
                share = ctx.activation(self.shared_router(forward, x), "sigmoid")  # [1, rows]
                always = ctx.mul(always, share)
            total = ctx.add(total, always)
        return total


class ExpertsBeside:
    """A feed-forward network and experts in parallel, each normed before and after (Gemma 4).

    The router reads rows that are normed without weights and scaled (`ffn_gate_inp.scale`).
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int, *, activation: str) -> None:
        blk, shape = f"blk.{layer}", (hp.n_embd,)
        self.hp = hp
        names = ("ffn_norm", "post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2")
        self.norms = [binder.rms_norm(f"{blk}.{name}", shape, hp.eps, layer) for name in names]
        self.scale = binder.tensor(f"{blk}.ffn_gate_inp.scale", shape, "mul", layer)
        self.ffn = FeedForward(binder, hp, layer, activation=activation)
        self.experts = MixtureOfExperts(binder, hp, layer, activation=activation)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """[n_embd, rows] -> [n_embd, rows]"""
        ctx, (before, behind, before_experts, behind_experts) = forward.ctx, self.norms
        y = behind(ctx, self.ffn(forward, before(ctx, x)))
        routed = ctx.mul(ctx.scale(ctx.rms_norm(x, self.hp.eps), self.hp.n_embd**-0.5), self.scale)
        return ctx.add(y, behind_experts(ctx, self.experts(forward, before_experts(ctx, x), routed)))
