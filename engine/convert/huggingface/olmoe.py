"""Hugging Face folders of OLMoE."""

from engine.convert.huggingface.base import Converter
from engine.convert.huggingface.names import experts
from engine.convert.huggingface.qwen2moe import Qwen2MoEConverter
from engine.convert.huggingface.qwen3 import Qwen3Converter


class OLMoEConverter(Qwen2MoEConverter):
    architecture = "olmoe"
    model_classes = ("OlmoeForCausalLM",)
    tensor_names = Qwen3Converter.tensor_names | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
    supported_settings = Converter.supported_settings | {"clip_qkv": (None,), "attention_bias": (False,)}
