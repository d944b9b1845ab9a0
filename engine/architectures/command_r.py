"""Command-R: LayerNorms without bias, both blocks on one norm, adjacent pairs rotated, SwiGLU, scaled logits.

Command-R+ also norms Q and K per head, with weights of its own for each.
"""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class CommandR(Decoder):
    name = "command-r"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="norm", eps="layer", logit_scale=keys.number("logit_scale", 1.0))

    def layer(self, binder: Binder, i: int) -> Layer:
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, self.hp, i, qk_norm="head" if qk_norm else None, norm=self.norm, own_weights=True
            ),
            ffn=FeedForward(binder, self.hp, i),
        )


ARCHITECTURE = CommandR
