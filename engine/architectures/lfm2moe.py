"""LFM2 MoE: as LFM2, with experts chosen by biased sigmoids in all but the first layers."""

from dataclasses import replace

from engine.architectures.lfm2 import LFM2
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class LFM2MoE(LFM2):
    name = "lfm2moe"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        n_dense = reader.integer("leading_dense_block_count", 0)
        routing = reader.routing("sigmoid", renormalise=True)
        return replace(cls.read(reader), n_dense=n_dense, routing=routing)
