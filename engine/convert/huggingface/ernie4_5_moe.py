"""Hugging Face folders of ERNIE 4.5 MoE."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.ernie4_5 import Ernie45Converter
from engine.convert.huggingface.names import experts, shared_experts


class Ernie45MoEConverter(Ernie45Converter):
    architecture = "ernie4_5-moe"
    model_classes = ("Ernie4_5_MoeForCausalLM",)
    ignored = ("model.mtp_", "mtp_")
    tensor_names = (
        Ernie45Converter.tensor_names
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | shared_experts("mlp.shared_experts")
        | {"model.layers.{i}.mlp.moe_statics.e_score_correction_bias": "blk.{i}.exp_probs_b.bias"}
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        c, n_layer = config, int(config["num_hidden_layers"])
        keys.only(c, "moe_layer_interval", 1)
        keys.only(c, "moe_layer_end_index", -1, n_layer - 1)
        width, shared = int(c["moe_intermediate_size"]), int(c.get("moe_num_shared_experts") or 0)
        return keys.common(c) | {
            "expert_count": int(keys.first(c, "moe_num_experts", "num_experts")),
            "expert_used_count": int(keys.first(c, "moe_k", "num_experts_per_tok")),
            "expert_shared_count": shared,
            "expert_shared_feed_forward_length": width * shared,
            "interleave_moe_layer_step": 1,
            "leading_dense_block_count": int(c.get("moe_layer_start_index") or 0),
        }
