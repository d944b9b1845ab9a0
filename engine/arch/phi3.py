"""Phi 3 and 4: as LLaMA, with Q, K, V and gate, up in one matrix each, halves rotated (arXiv 2404.14219)."""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention, FeedForward
from engine.arch.decoder import Decoder, Layer
from engine.arch.huggingface import STANDARD
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys
from engine.errors import UnsupportedModelError


class Phi3(Decoder):
    name = "phi3"
    huggingface = ("Phi3ForCausalLM",)
    names = STANDARD | {
        "model.layers.{i}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
        "model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    }

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common(config)
        trained = config.get("original_max_position_embeddings") or found["context_length"]
        found["rope.scaling.original_context_length"] = int(trained)
        if config.get("sliding_window"):
            found["attention.sliding_window"] = int(config["sliding_window"])
        return found

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        if "rope_factors_long.weight" in gguf.tensors:
            raise UnsupportedModelError(
                f"{gguf.path}: rope_factors_long.weight: rotary factors by length (LongRoPE) are unsupported"
            )
        return keys.hparams(rope="neox", windows=keys.windows(keys.integer("block_count")))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, gate="fused"),
        )


ARCHITECTURE = Phi3
