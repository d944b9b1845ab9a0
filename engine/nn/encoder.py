"""The frame of encoders (Devlin 2018, arXiv 1810.04805): rows see each other both ways, norms come last.

Outputs are hidden states; a whole sequence is computed in one batch.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from engine.nn.binder import Binder, Linear, Op
from engine.nn.hparams import Architecture
from engine.nn.layers import Attention, FeedForward


class Encoder(Architecture):
    """x = norm(x + attention(x)), then x = norm(x + feed-forward(x)); LayerNorm everywhere."""

    activation: ClassVar[str]
    gate: ClassVar[Literal["split"] | None] = None

    def bind(self, binder: Binder) -> None:
        hp = self.hp
        self.embedding = binder.tensor("token_embd.weight", (hp.n_embd, hp.n_vocab), "get_rows", -1)
        self.types = self.positions = None
        if hp.n_token_types:
            op: Op = "get_rows" if hp.n_token_types > 1 else "add"
            self.types = binder.tensor("token_types.weight", (hp.n_embd, hp.n_token_types), op, -1)
        if hp.max_positions:
            self.positions = binder.tensor(
                "position_embd.weight", (hp.n_embd, hp.max_positions), "get_rows", -1
            )
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
        # The head that ranks pairs: a dense layer with tanh, a projection, or both.
        self.dense: Linear | None = None
        self.projection: Linear | None = None
        if binder.has("cls.output.weight"):
            self.projection = binder.linear("cls.output", hp.n_embd, hp.n_scores, hp.n_layer)
        if binder.has("cls.weight"):
            n = hp.n_embd if self.projection else hp.n_scores
            self.dense = binder.linear("cls", hp.n_embd, n, hp.n_layer)

    def norm(self, binder: Binder, name: str, layer: int) -> Any:
        return binder.layer_norm(name, (self.hp.n_embd,), self.hp.eps, layer)

    def build(self, step: Any) -> Any | None:
        ctx = step.ctx
        x = ctx.get_rows(self.embedding, step.tokens)
        if self.types is not None:
            several = self.hp.n_token_types > 1
            x = ctx.add(x, ctx.get_rows(self.types, step.sentence_ids()) if several else self.types)
        if self.positions is not None:
            x = ctx.add(x, ctx.get_rows(self.positions, step.positions))
        x = self.embedding_norm(ctx, x)
        for i, (attention, attention_norm, ffn, ffn_norm) in enumerate(self.layers):
            attended = attention(step, x)
            if attended is None:
                return None
            if i == len(self.layers) - 1:
                attended, x = step.outputs_of(attended), step.outputs_of(x)
            x = attention_norm(ctx, ctx.add(attended, x))
            x = ffn_norm(ctx, ctx.add(ffn(step, x), x))
        return self.score(ctx, x) if step.scores else x

    def score(self, ctx: Any, x: Any) -> Any:
        """[n_embd, rows] -> [n_scores, rows]"""
        if self.dense is not None:
            x = ctx.tanh(self.dense(ctx, x))
        return x if self.projection is None else self.projection(ctx, x)
