"""LFM2 MoE: as LFM2, with experts chosen by biased sigmoids in all but the first layers."""

from dataclasses import replace

from engine.architectures.lfm2 import LFM2
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class LFM2MoE(LFM2):
    name = "lfm2moe"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_dense = reader.integer("leading_dense_block_count", 0)
        routing = reader.routing("sigmoid", renormalise=True)
        return replace(super().read(reader), n_dense=n_dense, routing=routing)
