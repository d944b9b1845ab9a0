"""Qwen 2 and 2.5: as LLaMA, but halves are rotated, and Q, K, V have biases (arXiv 2407.10671)."""

from __future__ import annotations

from typing import Any

from engine.arch.llama import Llama
from engine.arch.spec import HParams, Keys


class Qwen2(Llama):
    name = "qwen2"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="neox")


ARCHITECTURE = Qwen2
