"""The frame of encoders (Devlin 2018, arXiv 1810.04805): rows see each other both ways, norms come last.

Outputs are hidden states; a whole sequence is computed in one batch.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from engine.arch.blocks import Attention, FeedForward
from engine.arch.slots import Binder
from engine.arch.spec import Architecture


class Encoder(Architecture):
    """x = norm(x + attention(x)), then x = norm(x + feed-forward(x)); LayerNorm everywhere."""

    activation: ClassVar[str]
    gate: ClassVar[Literal["split"] | None] = None

    def bind(self, binder: Binder) -> None:
        hp = self.hp
        self.embedding = binder.tensor("token_embd.weight", (hp.n_embd, hp.n_vocab), "get_rows", -1)
        self.types = self.positions = None
        if hp.n_token_types:
            self.types = binder.tensor("token_types.weight", (hp.n_embd, hp.n_token_types), "add", -1)
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

    def norm(self, binder: Binder, name: str, layer: int) -> Any:
        return binder.layer_norm(name, (self.hp.n_embd,), self.hp.eps, layer)

    def build(self, step: Any) -> Any | None:
        ctx = step.ctx
        x = ctx.get_rows(self.embedding, step.tokens)
        if self.types is not None:  # all tokens are of the first sentence
            first = ctx.view(self.types, (self.hp.n_embd, 1), (self.types.strides[1],))
            x = ctx.add(x, first)
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
        return x
