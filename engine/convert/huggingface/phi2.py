"""Hugging Face folders of Phi 1, 1.5 and 2."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import GELU_TANH, STANDARD


class Phi2Converter(Converter):
    architecture = "phi2"
    model_classes = ("PhiForCausalLM",)
    tensor_names = STANDARD | {
        "model.final_layernorm": "output_norm",
        "model.layers.{i}.self_attn.dense": "blk.{i}.attn_output",
        "model.layers.{i}.mlp.fc1": "blk.{i}.ffn_up",
        "model.layers.{i}.mlp.fc2": "blk.{i}.ffn_down",
    }
    supported_settings = {"hidden_act": GELU_TANH, "qk_layernorm": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common({"partial_rotary_factor": 0.5} | config)
