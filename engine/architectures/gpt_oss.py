"""GPT-OSS: attention sinks, a window in every other layer, experts with biases and a clamped SwiGLU.

The router's softmax is over the chosen experts only (arXiv 2508.10925).
"""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention
from engine.nn.moe import MixtureOfExperts


class GPTOSS(Decoder):
    name = "gpt-oss"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_layer = keys.integer("block_count")
        rope = keys.rope("neox", keys.integer("rope.dimension_count", keys.integer("attention.key_length")))
        if rope.ext_factor:
            rope = rope.unrounded_yarn()
        return keys.hparams(rope=rope, windows=keys.windows(n_layer, pattern=2))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, sinks=True),
            ffn_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=MixtureOfExperts(binder, self.hp, i, activation="swiglu_oai", weights="chosen"),
        )


ARCHITECTURE = GPTOSS
