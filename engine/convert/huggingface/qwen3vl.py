"""Hugging Face folders of Qwen 3 VL, the text part."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.qwen3 import Qwen3Converter


class Qwen3VLConverter(Qwen3Converter):
    architecture = "qwen3vl"
    model_classes = ("Qwen3VLForConditionalGeneration",)
    ignored = ("visual.", "model.visual.")

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        layers = len((config.get("vision_config") or {}).get("deepstack_visual_indexes") or ())
        return keys.common(config) | keys.sections(config) | {"n_deepstack_layers": layers}
