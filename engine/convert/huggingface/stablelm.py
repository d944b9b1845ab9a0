"""Hugging Face folders of StableLM 2 and StableLM-3B."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import STANDARD


class StableLMConverter(Converter):
    architecture = "stablelm"
    model_classes = ("StableLmForCausalLM", "StableLMEpochForCausalLM")
    tensor_names = STANDARD | {
        "model.layers.{i}.self_attn.q_layernorm.norms.{e}": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.k_layernorm.norms.{e}": "blk.{i}.attn_k_norm",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        share = config.get("partial_rotary_factor", config.get("rope_pct", 0.25))
        converted = keys.common({"partial_rotary_factor": share} | config)
        return converted | {"use_parallel_residual": bool(config.get("use_parallel_residual", False))}
