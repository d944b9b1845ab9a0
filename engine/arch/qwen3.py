"""Qwen 3: as Qwen 2 without biases, and Q and K are normed per head (Yang 2025, arXiv 2505.09388)."""

from __future__ import annotations

from typing import Any, ClassVar

from engine.arch.blocks import Attention, FeedForward
from engine.arch.decoder import Block, Decoder, Layer
from engine.arch.huggingface import STANDARD
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Qwen3(Decoder):
    name = "qwen3"
    huggingface: ClassVar[tuple[str, ...]] = ("Qwen3ForCausalLM",)
    names: ClassVar[dict[str, str]] = STANDARD | {
        "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    }

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="neox")

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i)

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, qk_norm="head", norm=self.norm),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=self.feed_forward(binder, i),
        )


ARCHITECTURE = Qwen3
