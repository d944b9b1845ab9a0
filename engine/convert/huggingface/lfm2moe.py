"""Hugging Face folders of LFM2 MoE."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.lfm2 import LFM2Converter, lfm2_keys
from engine.convert.huggingface.names import experts


class LFM2MoEConverter(LFM2Converter):
    architecture = "lfm2moe"
    model_classes = ("Lfm2MoeForCausalLM",)
    supported_settings = LFM2Converter.supported_settings | {
        "norm_topk_prob": (True,),
        "routed_scaling_factor": (1, 1.0),
    }
    tensor_names = (
        LFM2Converter.tensor_names
        | experts("feed_forward", "w1", "w3", "w2", "gate")
        | {"model.layers.{i}.feed_forward.expert_bias": "blk.{i}.exp_probs_b.bias"}
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return lfm2_keys(config) | {
            "leading_dense_block_count": int(keys.first(config, "num_dense_layers")),
            "expert_gating_func": keys.GATING["sigmoid"],
        }
