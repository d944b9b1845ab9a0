"""Qwen 3 MoE: as Qwen 3, with experts whose weights are renormalised."""

from __future__ import annotations

from typing import Any

from engine.arch.decoder import Block
from engine.arch.experts import MixtureOfExperts
from engine.arch.qwen3 import Qwen3
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Qwen3MoE(Qwen3):
    name = "qwen3moe"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("expert_weights_norm", True)
        return keys.hparams(rope="neox")

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i)


ARCHITECTURE = Qwen3MoE
