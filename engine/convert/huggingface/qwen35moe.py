"""Hugging Face folders of Qwen 3.5 MoE, the text part."""

from typing import Any

from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.names import QK_NORMS
from engine.convert.huggingface.qwen2moe import Qwen2MoEConverter
from engine.convert.huggingface.qwen3next import LINEAR, convert_delta_tensor
from engine.convert.huggingface.qwen35 import IN_PROJECTIONS, Qwen35Converter, qwen35_keys, tiled


class Qwen35MoEConverter(Qwen2MoEConverter):
    architecture = "qwen35moe"
    model_classes = ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration")
    renormalises = True
    ignored = Qwen35Converter.ignored
    config_defaults = Qwen35Converter.config_defaults
    supported_settings = Qwen35Converter.supported_settings
    tensor_names = Qwen2MoEConverter.tensor_names | QK_NORMS | LINEAR | IN_PROJECTIONS

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return super().convert_keys(config) | qwen35_keys(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return convert_delta_tensor(name, tiled(name, x, config))
