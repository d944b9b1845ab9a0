"""Gemma 3 (text): as Gemma 2, with Q and K normed per head instead of soft-capped.

Five of six layers have a window and a different RoPE base (arXiv 2503.19786).
"""

import math
from typing import ClassVar

from engine.architectures.gemma2 import Gemma2
from engine.hparams import HParams, Rope
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.hparams_reader import HParamsReader

LAYERS_OF_27B = 62  # see gemma2.py


class Gemma3(Gemma2):
    name = "gemma3"
    full_each = 6
    causal: ClassVar[bool] = True

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer, n_embd = reader.integer("block_count"), reader.integer("embedding_length")
        n_head = reader.per_layer("attention.head_count", n_layer)[0]
        head_dim = reader.head_dim()
        scale = 1.0 / math.sqrt(n_embd / n_head) if n_layer == LAYERS_OF_27B else 0.0
        local = Rope(mode="neox", n_dims=head_dim, freq_base=reader.number("rope.freq_base_swa", 10000.0))
        reader.only("attention.causal", cls.causal)
        return reader.hparams(
            rope="neox",
            causal=cls.causal,
            rope_local=local,
            embedding_scale=math.sqrt(n_embd),
            windows=reader.windows(n_layer, pattern=cls.full_each),
            logit_softcap=reader.number("final_logit_softcapping", 0.0),
            attention_scale=reader.number("attention.scale", scale),
            pooling="last" if cls.causal else "mean",
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)
