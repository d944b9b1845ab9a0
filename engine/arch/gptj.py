"""GPT-J: attention and feed-forward side by side on one norm, partial rotary in pairs, GELU (tanh form).

No public converter writes it to GGUF: docs/architectures.md defines the layout.
"""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention, FeedForward
from engine.arch.decoder import Decoder, Layer
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class GPTJ(Decoder):
    name = "gptj"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="norm", eps="layer")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn=FeedForward(binder, self.hp, i, activation="gelu", gate=None),
        )


ARCHITECTURE = GPTJ
