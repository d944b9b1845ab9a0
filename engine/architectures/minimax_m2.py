"""MiniMax M2 and M2.5: as OLMoE with partial RoPE; experts are chosen by biased sigmoids."""

from engine.architectures.olmoe import OLMoE
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class MiniMaxM2(OLMoE):
    name = "minimax-m2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", routing=reader.routing("sigmoid", renormalise=True))
