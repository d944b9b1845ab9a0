"""Hugging Face folders of Qwen 1.5 MoE and Qwen 2 MoE."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.names import experts, shared_experts
from engine.convert.huggingface.qwen2 import Qwen2Converter


class Qwen2MoEConverter(Qwen2Converter):
    architecture = "qwen2moe"
    model_classes: ClassVar[tuple[str, ...]] = ("Qwen2MoeForCausalLM",)
    renormalises: ClassVar[bool] = False  # the weights of the selected experts
    tensor_names = (
        Qwen2Converter.tensor_names
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | shared_experts("mlp.shared_expert")
        | {
            "model.layers.{i}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
        }
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        if config.get("norm_topk_prob", cls.renormalises) is not cls.renormalises:
            keys.refuse("norm_topk_prob", config["norm_topk_prob"])
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            keys.refuse("mlp_only_layers or decoder_sparse_step", "set")
        return super().convert_keys(config)
