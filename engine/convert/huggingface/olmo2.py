"""Hugging Face folders of OLMo 2."""

from engine.convert.huggingface.base import Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD


class OLMo2Converter(Converter):
    architecture = "olmo2"
    model_classes = ("Olmo2ForCausalLM",)
    tensor_names = (
        STANDARD
        | QK_NORMS
        | {
            "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
            "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
        }
    )
