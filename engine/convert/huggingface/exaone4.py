"""Hugging Face folders of EXAONE 4."""

from typing import Any

from engine.architectures.exaone4 import FULL_EACH
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD


class EXAONE4Converter(Converter):
    architecture = "exaone4"
    model_classes = ("Exaone4ForCausalLM",)
    tensor_names = (
        STANDARD
        | QK_NORMS
        | {
            "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
            "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
        }
    )
    supported_settings = Converter.supported_settings | {"sliding_window_pattern": ("LLLG", 4, 0)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | keys.windows(config, FULL_EACH)

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        return keys.llama3_tensors(config)
