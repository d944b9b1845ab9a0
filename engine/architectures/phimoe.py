"""Phi-3.5-MoE and Phi-mini-MoE: as Phi 3 with layer norms, biases, and experts (arXiv 2404.14219)."""

from dataclasses import replace

from engine.architectures.phi3 import Phi3
from engine.hparams import HParams, Routing
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class PhiMoE(Phi3):
    name = "phimoe"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("expert_used_count", 2)
        return replace(super().read(reader), routing=Routing(weights="sparsemixer"))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i)
