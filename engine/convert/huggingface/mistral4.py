"""Hugging Face folders of Mistral Small 4 (text part)."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.deepseek2 import DeepSeek2Converter
from engine.convert.huggingface.mistral3 import Mistral3Converter

_EXPERTS = "model.layers.{i}.mlp.experts"


class Mistral4Converter(DeepSeek2Converter):
    architecture = "mistral4"
    model_classes = ("Mistral3ForConditionalGeneration", "Mistral4ForCausalLM")
    ignored = Mistral3Converter.ignored
    tensor_names = DeepSeek2Converter.tensor_names | {
        f"{_EXPERTS}.gate_up_proj": "blk.{i}.ffn_gate_up_exps",
        f"{_EXPERTS}.down_proj": "blk.{i}.ffn_down_exps",
    }

    @classmethod
    def converts(cls, config: Config) -> bool:
        return config.get("model_type") == "mistral4"

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = super().convert_keys(config) | {
            "expert_gating_func": keys.GATING["softmax"],
            "rope.dimension_count": int(config["qk_rope_head_dim"]),
        }
        growth = keys.rope_parameters(config).get("llama_4_scaling_beta")
        if growth is not None:
            converted["attention.temperature_scale"] = float(growth)
        return converted
