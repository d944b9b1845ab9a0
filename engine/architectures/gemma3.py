"""Gemma 3 (text): as Gemma 2, with Q and K normed per head instead of soft-capped.

Five of six layers have a window, and another rotation (arXiv 2503.19786).
"""

from __future__ import annotations

import math
from typing import Any

from engine.architectures.gemma2 import Gemma2
from engine.nn.binder import Binder
from engine.nn.hparams import HParams, Keys, Rope
from engine.nn.layers import Attention

LAYERS_OF_27B = 62  # see gemma2.py


class Gemma3(Gemma2):
    name = "gemma3"
    full_each = 6

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_layer, n_embd = keys.integer("block_count"), keys.integer("embedding_length")
        n_head = keys.per_layer("attention.head_count", n_layer)[0]
        head_dim = keys.integer("attention.key_length", n_embd // n_head)
        more: dict[str, Any] = {}
        if n_layer == LAYERS_OF_27B and not keys.has("attention.scale"):
            more["attention_scale"] = 1.0 / math.sqrt(n_embd / n_head)
        local = Rope(mode="neox", n_dims=head_dim, freq_base=keys.number("rope.freq_base_swa", 10000.0))
        return keys.hparams(
            rope="neox",
            rope_local=local,
            embedding_scale=math.sqrt(n_embd),
            windows=keys.windows(n_layer, pattern=cls.full_each),
            logit_softcap=keys.number("final_logit_softcapping", 0.0),
            **more,
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)


ARCHITECTURE = Gemma3
