"""Phi 3 and 4: as LLaMA, with Q, K, V and gate, up in one matrix each, halves rotated (arXiv 2404.14219)."""

from __future__ import annotations

import math
from typing import Any

from engine.convert.huggingface.names import STANDARD
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


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
        found["rope.scaling.original_context_length"] = n = keys.n_ctx_original(config)
        rope = keys.rope_parameters(config)
        if rope["rope_type"] in ("longrope", "su"):
            factor = rope.get("factor") or found["context_length"] / n
            stated = rope.get("attention_factor")
            usual = math.sqrt(1 + math.log(max(factor, 1)) / math.log(n))  # arXiv 2402.13753
            found["rope.scaling.attn_factor"] = float(stated if stated is not None else usual)
        found["attention.sliding_window"] = int(config.get("sliding_window") or 0)
        return found

    @classmethod
    def extra_tensors(cls, config: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        from engine.convert import keys

        rope = keys.rope_parameters(config)
        if rope["rope_type"] not in ("longrope", "su"):
            return {}
        return {
            f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32)
            for kind in ("long", "short")
        }

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_short = 0
        if "rope_factors_long.weight" in gguf.tensors:
            n_short = keys.integer("rope.scaling.original_context_length")
        windows = keys.windows(keys.integer("block_count"))
        return keys.hparams(rope="neox", windows=windows, n_short=n_short)

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, gate="fused"),
        )


ARCHITECTURE = Phi3
