"""Phi 1, 1.5 and 2: as GPT-J, with NeoX-style RoPE and biases everywhere (arXiv 2309.05463)."""

from engine.architectures.gptj import GPTJ
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Phi2(GPTJ):
    name = "phi2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", eps="layer")
