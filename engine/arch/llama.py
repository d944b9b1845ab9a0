"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each half, rotary, SwiGLU.

Q and K come permuted for rotation of adjacent pairs. Optional: biases, a tied head, rope scaling,
experts, a sliding window.
"""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention, FeedForward
from engine.arch.decoder import Decoder, Layer
from engine.arch.experts import MixtureOfExperts
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Llama(Decoder):
    name = "llama"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("attention.clamp_kqv", 0.0)
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
