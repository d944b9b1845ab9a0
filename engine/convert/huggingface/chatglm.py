"""Hugging Face folders of GLM-4 (of 2024) in the form of transformers."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import STANDARD


class ChatGLMConverter(Converter):
    architecture = "chatglm"
    model_classes = ("GlmForCausalLM",)
    tensor_names = STANDARD | {"model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up"}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        share = keys.rope_parameters(config).get("partial_rotary_factor", 0.5)
        return keys.common({"rope_theta": 10000.0} | config | {"partial_rotary_factor": share})
