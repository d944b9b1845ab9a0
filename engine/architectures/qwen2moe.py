"""Qwen 1.5 and 2 MoE: as Qwen 2, with experts without renormalised weights, and a gated shared expert."""

from dataclasses import replace
from typing import ClassVar

from engine.architectures.qwen2 import Qwen2
from engine.hparams import HParams, Routing
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class Qwen2MoE(Qwen2):
    name = "qwen2moe"
    renormalised: ClassVar[bool] = False

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("expert_weights_norm", cls.renormalised)
        return replace(super().read(reader), routing=Routing(renormalise=cls.renormalised))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, shared=True)
