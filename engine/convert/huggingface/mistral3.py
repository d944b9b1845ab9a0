"""Hugging Face folders of Mistral Small 3.1 (text part) and Ministral 3."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD


class Mistral3Converter(LlamaConverter):
    architecture = "mistral3"
    model_classes = ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM")
    tensor_names = STANDARD
    ignored = (
        *("vision_tower.", "multi_modal_projector."),
        *("model.vision_tower.", "model.multi_modal_projector."),
    )
    supported_settings = LlamaConverter.supported_settings | {
        "model_type": ("mistral3", "ministral3", "mistral"),
        "rope_parameters.mscale": (1.0,),
        "rope_parameters.mscale_all_dim": (1.0,),
        "sliding_window": (),
    }

    @classmethod
    def converts(cls, config: Config) -> bool:
        return config.get("model_type") != "mistral4"

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted, rope = super().convert_keys(config), keys.rope_parameters(config)
        if rope.get("mscale_all_dim"):
            converted["rope.scaling.yarn_log_multiplier"] = float(rope["mscale_all_dim"])
        if rope.get("llama_4_scaling_beta"):
            converted["attention.temperature_scale"] = float(rope["llama_4_scaling_beta"])
        return converted
