"""Hugging Face folders of Qwen 3 MoE."""

from engine.convert.huggingface.names import experts
from engine.convert.huggingface.qwen2moe import Qwen2MoEConverter
from engine.convert.huggingface.qwen3 import Qwen3Converter


class Qwen3MoEConverter(Qwen2MoEConverter):
    architecture = "qwen3moe"
    model_classes = ("Qwen3MoeForCausalLM",)
    renormalises = True
    tensor_names = Qwen3Converter.tensor_names | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
