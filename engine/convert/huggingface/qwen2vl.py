"""Hugging Face folders of Qwen 2 VL and 2.5 VL, the text part."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.qwen2 import Qwen2Converter


class Qwen2VLConverter(Qwen2Converter):
    architecture = "qwen2vl"
    model_classes = ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")
    ignored = ("visual.", "model.visual.")

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | keys.sections(config)
