"""Nemotron 3 and 4, Minitron: LayerNorms, partial RoPE, a feed-forward of squared ReLU (arXiv 2402.16819).

The 1 that it adds to its norms' weights is already in the file's weights.
"""

from engine.architectures.qwen2 import Qwen2
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Nemotron(Qwen2):
    name = "nemotron"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", eps="layer")

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="relu_squared", gate=None)
