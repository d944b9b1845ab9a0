"""Hugging Face folders of Phi-3.5-MoE and Phi-mini-MoE."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.names import STANDARD, experts
from engine.convert.huggingface.phi3 import Phi3Converter

JITTER = 0.01  # which no key says


class PhiMoEConverter(Phi3Converter):
    architecture = "phimoe"
    model_classes = ("PhimoeForCausalLM", "PhiMoEForCausalLM")
    tensor_names = STANDARD | experts("block_sparse_moe", "w1", "w3", "w2", "gate")
    supported_settings = Phi3Converter.supported_settings | {
        "router_jitter_noise": (JITTER,),
        "num_experts_per_tok": (2,),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted, rope = super().convert_keys(config), keys.rope_parameters(config)
        if rope.get("rope_type") in ("longrope", "su"):  # it states what Phi 3 computes
            if rope["long_mscale"] != rope["short_mscale"]:
                keys.refuse("short_mscale", rope["short_mscale"], rope["long_mscale"])
            converted["rope.scaling.attn_factor"] = float(rope["long_mscale"])
        return converted
