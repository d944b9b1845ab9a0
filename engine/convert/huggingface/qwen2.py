"""Hugging Face folders of Qwen 1.5, 2 and 2.5."""

from typing import ClassVar

from engine.convert.huggingface.base import Converter
from engine.convert.huggingface.names import STANDARD


class Qwen2Converter(Converter):
    architecture = "qwen2"
    model_classes: ClassVar[tuple[str, ...]] = ("Qwen2ForCausalLM",)
    tensor_names = STANDARD
    supported_settings = Converter.supported_settings | {"use_sliding_window": (False,)}
