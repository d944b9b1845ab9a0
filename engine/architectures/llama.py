"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each half, rotary, SwiGLU.

Q and K come permuted for rotation of adjacent pairs. Optional: biases, a tied head, rope scaling,
experts, a sliding window.
"""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward
from engine.nn.moe import MixtureOfExperts


class Llama(Decoder):
    name = "llama"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="norm", windows=keys.windows(keys.integer("block_count")))

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=(MixtureOfExperts if hp.n_expert else FeedForward)(binder, hp, i),
        )


ARCHITECTURE = Llama
