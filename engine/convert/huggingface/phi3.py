"""Hugging Face folders of Phi 3 and 4."""

import math
from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.huggingface.names import STANDARD


class Phi3Converter(Converter):
    architecture = "phi3"
    model_classes = ("Phi3ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
        "model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config)
        converted["rope.scaling.original_context_length"] = n = keys.n_ctx_original(config)
        rope = keys.rope_parameters(config)
        if rope["rope_type"] in ("longrope", "su"):
            factor = rope.get("factor") or converted["context_length"] / n
            stated = rope.get("attention_factor")
            usual = math.sqrt(1 + math.log(max(factor, 1)) / math.log(n))  # arXiv 2402.13753
            converted["rope.scaling.attn_factor"] = float(stated if stated is not None else usual)
        converted["attention.sliding_window"] = int(config.get("sliding_window") or 0)
        return converted

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        rope = keys.rope_parameters(config)
        if rope["rope_type"] not in ("longrope", "su"):
            return {}
        return {
            f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32)
            for kind in ("long", "short")
        }
