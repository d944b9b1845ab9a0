"""Qwen 2 MoE: as Qwen 2, with experts whose weights are not renormalised, and a gated shared one."""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention
from engine.arch.decoder import Decoder, Layer
from engine.arch.experts import MixtureOfExperts
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Qwen2MoE(Decoder):
    name = "qwen2moe"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("expert_weights_norm", False)
        return keys.hparams(rope="neox")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=MixtureOfExperts(binder, self.hp, i, renormalise=False, shared=True),
        )


ARCHITECTURE = Qwen2MoE
