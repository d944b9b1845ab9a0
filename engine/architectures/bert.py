"""BERT: learned positions, GELU (exact form), biases everywhere (Devlin 2018, arXiv 1810.04805)."""

from __future__ import annotations

from typing import Any

from engine.nn.encoder import Encoder
from engine.nn.hparams import HParams, Keys


class Bert(Encoder):
    name = "bert"
    activation = "gelu_erf"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.encoder(rope=None, max_positions=keys.integer("context_length"))


ARCHITECTURE = Bert
