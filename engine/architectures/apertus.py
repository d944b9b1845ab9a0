"""Apertus: as LLaMA, with NeoX-style RoPE, per-head norms of Q and K, xIELU (arXiv 2509.14233)."""

from engine.architectures.qwen3 import Qwen3
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Apertus(Qwen3):
    name = "apertus"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.integer("block_count")
        names = ("alpha_n", "alpha_p", "beta", "eps")
        values = [reader.gguf.get_floats(f"xielu.{name}", n_layer) for name in names]
        return reader.hparams(rope="neox", xielu=tuple(zip(*values, strict=True)))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="xielu", gate=None)
