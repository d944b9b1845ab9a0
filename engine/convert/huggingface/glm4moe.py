"""Hugging Face folders of GLM-4.5, 4.6 and 4.7."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD, experts, shared_experts

BIAS = "model.layers.{i}.mlp.gate.e_score_correction_bias"


class GLM4MoEConverter(Converter):
    architecture = "glm4moe"
    model_classes = ("Glm4MoeForCausalLM",)
    predicts_more = True
    tensor_names = (
        STANDARD
        | QK_NORMS
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | shared_experts("mlp.shared_experts")
        | {BIAS: "blk.{i}.exp_probs_b.bias"}
        | {"model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm"}
    )
    config_defaults = {"partial_rotary_factor": 0.5}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | keys.routing(config, "sigmoid") | {"nextn_predict_layers": 0}
