"""Hugging Face folders of Qwen 3."""

from engine.convert.huggingface.names import QK_NORMS
from engine.convert.huggingface.qwen2 import Qwen2Converter


class Qwen3Converter(Qwen2Converter):
    architecture = "qwen3"
    model_classes = ("Qwen3ForCausalLM",)
    tensor_names = Qwen2Converter.tensor_names | QK_NORMS
