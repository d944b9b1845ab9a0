"""The frame of encoders (Devlin 2018, arXiv 1810.04805): bidirectional attention, norms after each block.

Outputs are hidden states; a sequence is computed whole, in one batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.nn.architecture import Architecture
from engine.nn.attention import Attention
from engine.nn.binder import Binder, Op
from engine.nn.feed_forward import FeedForward
from engine.nn.layers import LayerNorm, Linear


class Encoder(Architecture):
    """x = norm(x + attention(x)), then x = norm(x + feed-forward(x)); LayerNorm everywhere."""

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
        self.layers = [
            (
                Attention(binder, hp, i),
                self.norm(binder, f"blk.{i}.attn_output_norm", i),
                FeedForward(binder, hp, i, activation=self.activation, gate=self.gate),
                self.norm(binder, f"blk.{i}.layer_output_norm", i),
            )
            for i in range(hp.n_layer)
        ]
        # The classification head of rerankers: a dense layer with tanh, a projection, or both.
        self.dense: Linear | None = None
        self.projection: Linear | None = None
        if binder.has("cls.output.weight"):
            self.projection = binder.linear("cls.output", hp.n_embd, hp.n_scores, hp.n_layer)
        if binder.has("cls.weight"):
            n = hp.n_embd if self.projection else hp.n_scores
            self.dense = binder.linear("cls", hp.n_embd, n, hp.n_layer)

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
        for i, (attention, attention_norm, ffn, ffn_norm) in enumerate(self.layers):
            attended = attention(forward, x)
            if attended is None:
                return None
            if i == len(self.layers) - 1:
                attended, x = forward.outputs_of(attended), forward.outputs_of(x)
            x = attention_norm(ctx, ctx.add(attended, x))
            x = ffn_norm(ctx, ctx.add(ffn(forward, x), x))
        return self.score(forward, x) if forward.shape.scores else x

    def score(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """[n_embd, rows] -> [n_scores, rows]"""
        if self.dense is not None:
            x = forward.ctx.tanh(self.dense(forward, x))
        return x if self.projection is None else self.projection(forward, x)
