"""StarCoder and SantaCoder (GPT-BigCode): as GPT-2, with one KV head (arXiv 2305.06161)."""

from __future__ import annotations

from typing import Any

from engine.architectures.gpt2 import GPT2
from engine.nn.hparams import HParams, Keys


class StarCoder(GPT2):
    name = "starcoder"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope=None, eps="layer", max_positions=keys.integer("context_length"))


ARCHITECTURE = StarCoder
