"""Hugging Face folders of StarCoder 2."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import GELU_TANH, STANDARD


class StarCoder2Converter(Converter):
    architecture = "starcoder2"
    model_classes = ("Starcoder2ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.mlp.c_fc": "blk.{i}.ffn_up",
        "model.layers.{i}.mlp.c_proj": "blk.{i}.ffn_down",
    }
    tied_by_default = True
    supported_settings = {"hidden_act": GELU_TANH, "norm_type": ("layer_norm",), "mlp_type": ("default",)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | {"attention.sliding_window": int(config.get("sliding_window") or 0)}
