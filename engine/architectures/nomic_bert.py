"""Nomic BERT: as BERT, with rotated halves, a gated SiLU, no biases (Nussbaum 2024, arXiv 2402.01613)."""

from __future__ import annotations

from typing import Any

from engine.nn.encoder import Encoder
from engine.nn.hparams import HParams, Keys


class NomicBert(Encoder):
    name = "nomic-bert"
    activation = "silu"
    gate = "split"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).encoder(rope="neox")


ARCHITECTURE = NomicBert
