"""Hugging Face folders of GLM-4-0414."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import STANDARD


class GLM4Converter(Converter):
    architecture = "glm4"
    model_classes = ("Glm4ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.post_self_attn_layernorm": "blk.{i}.post_attention_norm",
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
        "model.layers.{i}.post_mlp_layernorm": "blk.{i}.post_ffw_norm",
        "model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        share = keys.rope_parameters(config).get("partial_rotary_factor", 0.5)
        return keys.common(config | {"partial_rotary_factor": share})
