"""Gemma: as LLaMA, but GeGLU, halves are rotated, and the embedding is scaled (arXiv 2403.08295).

The one that Gemma adds to its norms' weights is in the file's weights already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from engine.convert.huggingface.names import GELU_TANH, STANDARD
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class Gemma(Decoder):
    name = "gemma"
    huggingface = ("GemmaForCausalLM",)
    names = STANDARD
    tied_by_default = True
    # The first folders say `gelu` and mean the form by tanh.
    settings = {"hidden_act": ("gelu", *GELU_TANH), "hidden_activation": GELU_TANH}  # noqa: RUF012

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        # Their norms add one to the weight.
        return ((name, x + 1 if name.endswith("norm.weight") else x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="neox", embedding_scale=math.sqrt(keys.integer("embedding_length")))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu"),
        )


ARCHITECTURE = Gemma
