"""GPT-2: LayerNorms, learned positions, fused QKV, GELU (tanh form), biases, usually a tied head."""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class GPT2(Decoder):
    name = "gpt2"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope=None, eps="layer", max_positions=keys.integer("context_length"))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu", gate=None),
        )


ARCHITECTURE = GPT2
