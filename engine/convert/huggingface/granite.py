"""Hugging Face folders of Granite 3."""

from typing import Any, ClassVar

from engine.convert.huggingface.base import Config
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD

_MULTIPLIERS = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


class GraniteConverter(LlamaConverter):
    architecture = "granite"
    model_classes: ClassVar[tuple[str, ...]] = ("GraniteForCausalLM",)
    tensor_names = STANDARD

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        scales = {key: float(config.get(name) or 1.0) for key, name in _MULTIPLIERS.items()}
        return super().convert_keys(config) | scales
