"""Hugging Face folders of OLMo 2 and 3."""

from typing import Any

from engine.architectures.olmo2 import FULL_EACH
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD


class OLMo2Converter(Converter):
    architecture = "olmo2"
    model_classes = ("Olmo2ForCausalLM", "Olmo3ForCausalLM")
    tensor_names = (
        STANDARD
        | QK_NORMS
        | {
            "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
            "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
        }
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | keys.windows(config, FULL_EACH)
