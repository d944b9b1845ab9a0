"""Hugging Face folders of MiniMax M2 and M2.5."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD, experts


class MiniMaxM2Converter(Converter):
    architecture = "minimax-m2"
    model_classes = ("MiniMaxM2ForCausalLM",)
    predicts_more = True
    tensor_names = (
        STANDARD
        | QK_NORMS
        | experts("block_sparse_moe", "w1", "w3", "w2", "gate")
        | {"model.layers.{i}.block_sparse_moe.e_score_correction_bias": "blk.{i}.exp_probs_b.bias"}
    )
    supported_settings = Converter.supported_settings | {
        "use_qk_norm": (True,),
        "qk_norm_type": ("per_layer",),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        if n_rot := config.get("rotary_dim"):
            config = config | {"partial_rotary_factor": n_rot / config["head_dim"]}
        converted = keys.common(config) | {"expert_feed_forward_length": int(config["intermediate_size"])}
        return converted | {"expert_gating_func": keys.GATING[config.get("scoring_func", "sigmoid")]}
