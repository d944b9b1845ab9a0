"""Qwen 1.5, 2 and 2.5: as LLaMA, but halves are rotated, and Q, K, V have biases (arXiv 2407.10671)."""

from typing import ClassVar

from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Qwen2(Decoder):
    name = "qwen2"
    ffn_norm: ClassVar[str] = "ffn_norm"  # the name of its tensor

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        return HParamsReader(gguf, cls.name).hparams(rope="neox")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=self.attention(binder, i),
            ffn_norm=self.block_norm(binder, i, self.ffn_norm),
            ffn=self.feed_forward(binder, i),
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i)
