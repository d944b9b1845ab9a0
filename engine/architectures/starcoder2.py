"""StarCoder 2: LayerNorms, biases, halves rotated, GELU (tanh form), a window (arXiv 2402.19173)."""

from __future__ import annotations

from typing import Any

from engine.architectures.gpt2 import GPT2
from engine.nn.hparams import HParams, Keys

WINDOW = 4096  # of all published models; llama.cpp's converter leaves the key out


class StarCoder2(GPT2):
    name = "starcoder2"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        windows = keys.windows(keys.integer("block_count"), default=WINDOW)
        return keys.hparams(rope="neox", eps="layer", windows=windows)


ARCHITECTURE = StarCoder2
