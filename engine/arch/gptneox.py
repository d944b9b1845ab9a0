"""GPT-NeoX, Pythia, Dolly, RedPajama, StableLM-alpha: two norms, both on x where the residual is parallel.

Partial rotary embedding, GELU, biases everywhere (Black 2022, arXiv 2204.06745).
"""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention, FeedForward
from engine.arch.decoder import Decoder, Layer
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class GPTNeoX(Decoder):
    name = "gptneox"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="neox", eps="layer", parallel=keys.flag("use_parallel_residual", True))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            parallel=self.hp.parallel,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu_erf", gate=None),
        )


ARCHITECTURE = GPTNeoX
