"""The decoder frame: embedding, layers, head. An architecture states what its layers consist of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext, LongRopeFactors, RopeFactors
from engine.hparams import HParams
from engine.nn.architecture import Architecture
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.feed_forward import FeedForward
from engine.nn.layers import Linear, Norm, RMSNorm
from engine.nn.moe import MixtureOfExperts

Block = Callable[[ForwardContext, Tensor], Tensor]
# Attention, or what carries a state from token to token in its place. None: nothing reads its output.
Mixer = Callable[[ForwardContext, Tensor], Tensor | None]


class PerLayerInputs:
    """The token's rows of a wide table, mixed with the embedding, which each layer reads again (Gemma 4)."""

    def __init__(self, binder: Binder, hp: HParams) -> None:
        self.size, self.n_layer = hp.n_per_layer, hp.n_layer
        width = self.size * self.n_layer
        self.table = binder.tensor("per_layer_token_embd.weight", (width, hp.n_vocab), "get_rows", -1)
        self.projection = binder.linear("per_layer_model_proj", hp.n_embd, width, 0)
        self.norm = binder.rms_norm("per_layer_proj_norm", (self.size,), hp.eps, 0)
        self.mixed: list[Tensor] = []  # of the graph that is being built

    def prepare(self, forward: ForwardContext, x: Tensor) -> None:
        """x: the scaled embedding [n_embd, rows]."""
        ctx, n, rows = forward.ctx, self.size, x.shape[1]
        looked_up = ctx.reshape(ctx.get_rows(self.table, forward.tokens), n, self.n_layer, rows)
        mixed = ctx.scale(self.projection(forward, x), x.shape[0] ** -0.5)
        mixed = self.norm(ctx, ctx.reshape(mixed, n, self.n_layer, rows))
        mixed = ctx.scale(ctx.add(mixed, ctx.scale(looked_up, n**0.5)), 2**-0.5)
        self.mixed = [
            ctx.cont(ctx.view(mixed, (n, rows), (mixed.strides[2],), i * mixed.strides[1]))
            for i in range(self.n_layer)
        ]

    def layer(self, binder: Binder, hp: HParams, i: int) -> PerLayerInput:
        return PerLayerInput(
            self,
            i,
            binder.linear(f"blk.{i}.inp_gate", hp.n_embd, self.size, i),
            binder.linear(f"blk.{i}.proj", self.size, hp.n_embd, i),
            binder.rms_norm(f"blk.{i}.post_norm", (hp.n_embd,), hp.eps, i),
        )


@dataclass(frozen=True)
class PerLayerInput:
    """x + norm(out(gelu(gate x) * what the layer reads of the token)), [n_embd, rows]."""

    inputs: PerLayerInputs
    number: int
    gate: Linear
    out: Linear
    norm: RMSNorm

    def __call__(self, forward: ForwardContext, x: Tensor, last: bool) -> Tensor:
        return forward.ctx.add(x, self.of(forward, x, last))

    def of(self, forward: ForwardContext, x: Tensor, last: bool) -> Tensor:
        """The value that is added to x."""
        mixed = self.inputs.mixed[self.number]
        if last:
            mixed = forward.outputs_of(mixed)
        gated = forward.activate(self.number, "gelu", self.gate(forward, x), mixed)
        return self.norm(forward.ctx, self.out(forward, gated))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """x + attention, then x + feed-forward; or, `parallel`, x + attention + feed-forward; or only the first.

    attn_norm, ffn_norm: applied to a block's input; parallel without ffn_norm: both blocks read one norm.
    attn_post_norm, ffn_post_norm: applied to a block's output, before x is added.
    residual_scale: what a block's output is multiplied by, then. again: added behind both blocks.
    output_scale: F32 [1], multiplies the whole layer's output.
    """

    attention: Mixer
    ffn: Block | None = None
    attn_norm: Norm | None = None
    ffn_norm: Norm | None = None
    attn_post_norm: Norm | None = None
    ffn_post_norm: Norm | None = None
    parallel: bool = False
    residual_scale: float = 1.0
    again: PerLayerInput | None = None
    output_scale: Tensor | None = None

    def __call__(self, forward: ForwardContext, x: Tensor, last: bool) -> Tensor | None:
        """[n_embd, rows] -> the same; in the last layer [n_embd, n_outputs], or None without outputs."""
        ctx = forward.ctx
        normed = self.attn_norm(ctx, x) if self.attn_norm else x
        attended = self.attention(forward, normed)
        if attended is None:
            return None
        if last:
            # From here on only the rows whose outputs are wanted matter.
            attended, x = forward.outputs_of(attended), forward.outputs_of(x)
            if self.parallel and self.ffn_norm is None:
                normed = forward.outputs_of(normed)
        if self.attn_post_norm:
            attended = self.attn_post_norm(ctx, attended)
        attended = self.scaled(ctx, attended)
        if not self.parallel:
            x = ctx.add(attended, x)
            normed = x
        if self.ffn is None:
            return x
        normed = self.ffn_norm(ctx, x) if self.ffn_norm else normed
        y = self.ffn(forward, normed)
        if self.ffn_post_norm:
            y = self.ffn_post_norm(ctx, y)
        y = self.scaled(ctx, y)
        if self.parallel:
            x = ctx.add(attended, x)
        x = ctx.add(y, x)
        if self.again is not None:
            x = self.again(forward, x, last)
        return x if self.output_scale is None else ctx.mul(x, self.output_scale)

    def scaled(self, ctx: Context, x: Tensor) -> Tensor:
        return x if self.residual_scale == 1.0 else ctx.scale(x, self.residual_scale)


class Decoder(Architecture):
    """Token embedding (scaled, normed, with learned positions, as the model requires), layers, norm, head."""

    norms: ClassVar[Literal["rms", "layer"]] = "rms"
    norms_embedding: ClassVar[bool] = False  # `token_embd_norm` before the first layer
    ffn_norm: ClassVar[str] = "ffn_norm"  # the name of its tensor
    output_norm_name: ClassVar[str] = "output_norm"

    def norm(self, binder: Binder, name: str, shape: tuple[int, ...], layer: int) -> Norm:
        """A norm of this architecture's kind over ne0."""
        make = binder.rms_norm if self.norms == "rms" else binder.layer_norm
        return make(name, shape, self.hp.eps, layer)

    def block_norm(self, binder: Binder, layer: int, name: str) -> Norm:
        """The norm `blk.LAYER.NAME` of rows [n_embd]."""
        return self.norm(binder, f"blk.{layer}.{name}", (self.hp.n_embd,), layer)

    def layer(self, binder: Binder, i: int) -> Layer:
        """Layer `i` bound to its tensors; by default with a norm before each block, as in most models."""
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=self.attention(binder, i),
            ffn_norm=self.block_norm(binder, i, self.ffn_norm),
            ffn=self.feed_forward(binder, i),
            residual_scale=self.hp.residual_scale,
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        """The attention of `layer`."""
        return Attention(binder, self.hp, i, rope_factors=self.factors)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        """The feed-forward of `layer`: experts after the dense layers, with a shared expert if it has a
        width.
        """
        hp = self.hp
        if not hp.n_expert or i < hp.n_dense:
            return FeedForward(binder, hp, i)
        return MixtureOfExperts(binder, hp, i, shared=hp.n_ff_shared > 0, gated=False)

    def rope_factors(self, binder: Binder) -> RopeFactors:
        """Divisors of the frequencies, F32 [n_dims / 2], of all layers."""
        rope = self.hp.rope
        if rope is None:
            return None
        shape = (rope.n_dims // 2,)
        if self.hp.original_context_length:
            short, long = (f"rope_factors_{kind}.weight" for kind in ("short", "long"))
            return LongRopeFactors(
                binder.tensor(short, shape, "rope", 0), binder.tensor(long, shape, "rope", 0)
            )
        return binder.optional("rope_freqs.weight", shape, "rope", 0)

    def bind(self, binder: Binder) -> None:
        hp = self.hp
        self.embedding = binder.embedding(hp.n_embd, hp.n_vocab)
        self.positions = None
        if hp.max_positions:
            shape = (hp.n_embd, hp.max_positions)
            self.positions = binder.tensor("position_embd.weight", shape, "get_rows", -1)
        self.embedding_norm = None
        if self.norms_embedding:
            self.embedding_norm = self.norm(binder, "token_embd_norm", (hp.n_embd,), -1)
        self.factors = self.rope_factors(binder)
        self.again = PerLayerInputs(binder, hp) if hp.n_per_layer else None
        self.layers = [self.layer(binder, i) for i in range(hp.n_layer)]
        self.output_norm = self.norm(binder, self.output_norm_name, (hp.n_embd,), hp.n_layer)
        self.behind = []  # of EmbeddingGemma; before rows are pooled or after, it is the same
        if hp.n_between:
            self.behind.append(binder.linear("dense_2", hp.n_embd, hp.n_between, hp.n_layer))
            self.behind.append(binder.linear("dense_3", hp.n_between, hp.n_embd, hp.n_layer))
        self.output = binder.linear("output", hp.n_embd, hp.n_vocab, hp.n_layer, fallback="token_embd")

    def embed(self, forward: ForwardContext) -> Tensor:
        """-> [n_embd, rows]"""
        ctx = forward.ctx
        x = self.embedding(forward)
        if self.hp.embedding_scale != 1.0:
            x = ctx.scale(x, self.hp.embedding_scale)
        if self.positions is not None:
            x = ctx.add(x, ctx.get_rows(self.positions, forward.positions))
        if self.again is not None:
            self.again.prepare(forward, x)
        return x if self.embedding_norm is None else self.embedding_norm(ctx, x)

    def through_layers(self, forward: ForwardContext, embedded: Tensor) -> Tensor | None:
        """[n_embd, rows] -> [n_embd, n_outputs], or None without outputs."""
        x: Tensor | None = embedded
        for i, layer in enumerate(self.layers):
            assert x is not None  # only the last layer may have no outputs
            x = layer(forward, x, last=i == len(self.layers) - 1)
        return x

    def build(self, forward: ForwardContext) -> Tensor | None:
        ctx, hp = forward.ctx, self.hp
        x = self.through_layers(forward, self.embed(forward))
        if x is None:
            return None
        x = self.output_norm(ctx, x)
        if forward.shape.hidden:
            for matrix in self.behind:
                x = matrix(forward, x)
            return x
        logits = self.output(forward, x)
        if hp.logit_scale != 1.0:
            logits = ctx.scale(logits, hp.logit_scale)
        if hp.logit_softcap:
            cap = hp.logit_softcap
            logits = ctx.scale(ctx.tanh(ctx.scale(logits, 1.0 / cap)), cap)
        return logits
