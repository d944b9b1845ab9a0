"""Phi 3 and 4: as LLaMA, with Q, K, V and gate, up in one matrix each, halves rotated (arXiv 2404.14219)."""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class Phi3(Decoder):
    name = "phi3"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_short = 0
        if "rope_factors_long.weight" in gguf.tensors:
            n_short = keys.integer("rope.scaling.original_context_length")
        windows = keys.windows(keys.integer("block_count"))
        return keys.hparams(rope="neox", windows=windows, n_short=n_short)

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, gate="fused"),
        )


ARCHITECTURE = Phi3
