"""LFM2 MoE: as LFM2, with experts chosen by biased sigmoids in all but the first layers."""

from dataclasses import replace

from engine.architectures.lfm2 import LFM2
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class LFM2MoE(LFM2):
    name = "lfm2moe"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        n_dense = reader.integer("leading_dense_block_count", 0)
        routing = reader.routing("sigmoid", renormalise=True)
        return replace(cls.read(reader), n_dense=n_dense, routing=routing)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return (FeedForward if i < self.hp.n_dense else MixtureOfExperts)(binder, self.hp, i)
