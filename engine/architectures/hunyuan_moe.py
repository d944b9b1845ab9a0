"""Hunyuan-A13B: as the dense models, with experts and a shared one of the width of a dense network."""

from dataclasses import replace

from engine.architectures.hunyuan_dense import HunyuanDense
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class HunyuanMoE(HunyuanDense):
    name = "hunyuan-moe"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        hp = super().read(reader)
        width = reader.integer("expert_shared_feed_forward_length", 0)
        return replace(hp, n_ff_shared=width or hp.n_ff[0])
