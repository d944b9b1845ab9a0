"""Hunyuan-A13B: as the dense models, with experts and a shared one that is as wide as a dense network."""

from dataclasses import replace

from engine.architectures.hunyuan_dense import HunyuanDense
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class HunyuanMoE(HunyuanDense):
    name = "hunyuan-moe"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        hp = super().hparams(gguf)
        width = HParamsReader(gguf, cls.name).integer("expert_shared_feed_forward_length", 0)
        return replace(hp, n_ff_shared=width or hp.n_ff[0])

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, shared=True, gated=False)
