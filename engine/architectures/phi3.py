"""Phi 3 and 4: as LLaMA, with fused QKV and gate-up matrices, NeoX-style RoPE (arXiv 2404.14219)."""

from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Phi3(Decoder):
    name = "phi3"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        windows = reader.windows(reader.integer("block_count"))
        return reader.hparams(rope="neox", windows=windows, original_context_length=reader.long_rope())

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, gate="fused")
