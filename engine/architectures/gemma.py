"""Gemma: as LLaMA, but GeGLU, halves are rotated, and the embedding is scaled (arXiv 2403.08295).

The one that Gemma adds to its norms' weights is in the file's weights already.
"""

from __future__ import annotations

import math
from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class Gemma(Decoder):
    name = "gemma"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="neox", embedding_scale=math.sqrt(keys.integer("embedding_length")))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu"),
        )


ARCHITECTURE = Gemma
