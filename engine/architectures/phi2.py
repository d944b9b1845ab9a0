"""Phi 1, 1.5 and 2: as GPT-J, with NeoX-style RoPE and biases everywhere (arXiv 2309.05463)."""

from engine.architectures.gptj import GPTJ
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Phi2(GPTJ):
    name = "phi2"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        return HParamsReader(gguf, cls.name).hparams(rope="neox", eps="layer")
