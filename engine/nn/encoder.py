"""The frame of encoders (Devlin 2018, arXiv 1810.04805): bidirectional attention, norms after each block.

Outputs are hidden states; a sequence is computed whole, in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.nn.architecture import Architecture
from engine.nn.attention import Attention
from engine.nn.binder import Binder, Op
from engine.nn.feed_forward import FeedForward
from engine.nn.layers import LayerNorm, Linear


@dataclass(frozen=True)
class EncoderLayer:
    """x = norm(x + attention(x)), then x = norm(x + feed-forward(x)).

    attn_norm_again: of the first norm's output with the layer's input added once more.
    """

    attention: Attention
    attn_norm: LayerNorm
    attn_norm_again: LayerNorm | None
    ffn: FeedForward
    ffn_norm: LayerNorm


class Encoder(Architecture):
    """Embedding, norm, layers; LayerNorm everywhere. Biases and `attn_norm_2` as the file has them."""

    activation: ClassVar[str]
    gate: ClassVar[Literal["split"] | None] = None

    def bind(self, binder: Binder) -> None:
        hp = self.hp
        self.embedding = binder.embedding(hp.n_embd, hp.n_vocab)
        self.types = self.positions = None
        if hp.n_token_types:
            op: Op = "get_rows" if hp.n_token_types > 1 else "add"
            self.types = binder.tensor("token_types.weight", (hp.n_embd, hp.n_token_types), op, -1)
        if hp.max_positions:
            shape = (hp.n_embd, hp.max_positions)
            self.positions = binder.tensor("position_embd.weight", shape, "get_rows", -1)
        self.embedding_norm = self.norm(binder, "token_embd_norm", -1)
        self.layers = [self.layer(binder, i) for i in range(hp.n_layer)]
        # The classification head of rerankers: a dense layer with tanh, a projection, or both.
        self.dense: Linear | None = None
        self.projection: Linear | None = None
        if binder.has("cls.output.weight"):
            self.projection = binder.linear("cls.output", hp.n_embd, hp.n_scores, hp.n_layer)
        if binder.has("cls.weight"):
            n = hp.n_embd if self.projection else hp.n_scores
            self.dense = binder.linear("cls", hp.n_embd, n, hp.n_layer)

    def layer(self, binder: Binder, i: int) -> EncoderLayer:
        again = binder.has(f"blk.{i}.attn_norm_2.weight")
        return EncoderLayer(
            attention=self.attention(binder, i),
            attn_norm=self.norm(binder, f"blk.{i}.attn_output_norm", i),
            attn_norm_again=self.norm(binder, f"blk.{i}.attn_norm_2", i) if again else None,
            ffn=self.feed_forward(binder, i),
            ffn_norm=self.norm(binder, f"blk.{i}.layer_output_norm", i),
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i)

    def feed_forward(self, binder: Binder, i: int) -> FeedForward:
        return FeedForward(binder, self.hp, i, activation=self.activation, gate=self.gate)

    def norm(self, binder: Binder, name: str, layer: int) -> LayerNorm:
        return binder.layer_norm(name, (self.hp.n_embd,), self.hp.eps, layer)

    def build(self, forward: ForwardContext) -> Tensor | None:
        ctx = forward.ctx
        x = self.embedding(forward)
        if self.types is not None:
            one = self.hp.n_token_types == 1
            x = ctx.add(x, self.types if one else ctx.get_rows(self.types, forward.token_type_ids()))
        if self.positions is not None:
            x = ctx.add(x, ctx.get_rows(self.positions, forward.positions))
        x = self.embedding_norm(ctx, x)
        for i, layer in enumerate(self.layers):
            attended = layer.attention(forward, x)
            if attended is None:
                return None
            if i == len(self.layers) - 1:
                attended, x = forward.outputs_of(attended), forward.outputs_of(x)
            y = layer.attn_norm(ctx, ctx.add(attended, x))
            if layer.attn_norm_again is not None:
                y = layer.attn_norm_again(ctx, ctx.add(y, x))
            x = layer.ffn_norm(ctx, ctx.add(layer.ffn(forward, y), y))
        return self.score(forward, x) if forward.shape.scores else x

    def score(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """[n_embd, rows] -> [n_scores, rows]"""
        if self.dense is not None:
            x = forward.ctx.tanh(self.dense(forward, x))
        return x if self.projection is None else self.projection(forward, x)
