"""Hugging Face folders of DeepSeekMoE 16B."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD, experts, shared_experts


class DeepSeekConverter(LlamaConverter):
    architecture = "deepseek"
    model_classes = ("DeepseekForCausalLM",)
    tensor_names = (
        STANDARD
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | shared_experts("mlp.shared_experts")
    )
    supported_settings = LlamaConverter.supported_settings | {
        "norm_topk_prob": (False,),
        "moe_layer_freq": (1,),
        "rope_scaling.type": ("none",),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        routing = keys.routing(config, "softmax")
        return keys.common(config) | routing | {"expert_weights_scale": 1.0, "rope.scaling.type": "none"}
