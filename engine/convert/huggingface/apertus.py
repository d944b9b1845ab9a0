"""Hugging Face folders of Apertus."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD


class ApertusConverter(Converter):
    architecture = "apertus"
    model_classes = ("ApertusForCausalLM",)
    tensor_names = (
        STANDARD
        | QK_NORMS
        | {
            "model.layers.{i}.attention_layernorm": "blk.{i}.attn_norm",
            "model.layers.{i}.feedforward_layernorm": "blk.{i}.ffn_norm",
        }
    )
    layer_keys = {
        f"model.layers.{{i}}.mlp.act_fn.{name}": f"xielu.{name}"
        for name in ("alpha_n", "alpha_p", "beta", "eps")
    }
    supported_settings = {"hidden_act": ("xielu",), "post_norm": (False,), "qk_norm": (True,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config)

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        return keys.llama3_tensors(config)
