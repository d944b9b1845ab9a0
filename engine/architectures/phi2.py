"""Phi 1, 1.5 and 2: as GPT-J, but halves are rotated, and there are biases everywhere (arXiv 2309.05463)."""

from __future__ import annotations

from typing import Any

from engine.architectures.gptj import GPTJ
from engine.nn.hparams import HParams, Keys


class Phi2(GPTJ):
    name = "phi2"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="neox", eps="layer")


ARCHITECTURE = Phi2
