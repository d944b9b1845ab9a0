"""Qwen 3: as Qwen 2 without biases, and Q and K are normed per head (Yang 2025, arXiv 2505.09388)."""

from engine.architectures.qwen2 import Qwen2
from engine.nn.attention import Attention
from engine.nn.binder import Binder


class Qwen3(Qwen2):
    name = "qwen3"

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm, rope_factors=self.factors)
