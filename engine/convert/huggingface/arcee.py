"""Hugging Face folders of Arcee (AFM)."""

from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD


class ArceeConverter(LlamaConverter):
    architecture = "arcee"
    model_classes = ("ArceeForCausalLM",)
    tensor_names = STANDARD
    supported_settings = {"hidden_act": ("relu2",)}
