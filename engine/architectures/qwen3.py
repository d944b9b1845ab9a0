"""Qwen 3: as Qwen 2 without biases, and Q and K are normed per head (Yang 2025, arXiv 2505.09388)."""

from __future__ import annotations

from engine.architectures.qwen2 import Qwen2
from engine.nn.binder import Binder
from engine.nn.layers import Attention

QK_NORMS = {
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
}


class Qwen3(Qwen2):
    name = "qwen3"
    huggingface = ("Qwen3ForCausalLM",)
    names = Qwen2.names | QK_NORMS

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)


ARCHITECTURE = Qwen3
