"""Gemma: as LLaMA, with GeGLU, NeoX-style RoPE and a scaled embedding (arXiv 2403.08295).

The 1 that Gemma adds to its norms' weights is already in the file's weights.
"""

import math

from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Gemma(Decoder):
    name = "gemma"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", embedding_scale=math.sqrt(reader.integer("embedding_length")))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="gelu")
