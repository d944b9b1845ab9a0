"""Hunyuan, dense: as Qwen 3, but Q and K are normed after RoPE."""

from engine.architectures.qwen2 import Qwen2
from engine.nn.attention import Attention
from engine.nn.binder import Binder


class HunyuanDense(Qwen2):
    name = "hunyuan-dense"

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm, rotate_first=True)
