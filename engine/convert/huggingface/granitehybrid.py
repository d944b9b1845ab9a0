"""Hugging Face folders of Granite 4 with Mamba layers."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.falcon_h1 import MAMBA, mamba_keys
from engine.convert.huggingface.granite import GraniteConverter
from engine.convert.huggingface.mamba import CONTEXT_LENGTH
from engine.convert.huggingface.mamba2 import check_time_steps, convert_ssm2_tensor
from engine.convert.huggingface.names import below, interleave


class GraniteHybridConverter(GraniteConverter):
    architecture = "granitehybrid"
    model_classes = ("GraniteMoeHybridForCausalLM",)
    supported_settings = GraniteConverter.supported_settings | {
        "position_embedding_type": ("nope",),
        "mamba_proj_bias": (False,),
        "normalization_function": ("rmsnorm",),
    }
    tensor_names = (
        GraniteConverter.tensor_names
        | MAMBA
        | below(
            "model.layers",
            {
                "shared_mlp.input_linear": "ffn_up_shexp",
                "shared_mlp.output_linear": "ffn_down_shexp",
                "block_sparse_moe.input_linear": "ffn_up_exps",
                "block_sparse_moe.output_linear": "ffn_down_exps",
                "block_sparse_moe.router.layer": "ffn_gate_inp",
            },
        )
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        check_time_steps(config)
        kinds = keys.first(config, "layer_types", "layers_block_type")
        n_kv = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        converted = super().convert_keys(config) | mamba_keys(
            config, int(config["mamba_expand"]) * int(config["hidden_size"])
        )
        shared = int(config["shared_intermediate_size"])
        if not config.get("num_local_experts"):  # what is shared is then all there is
            converted["feed_forward_length"] = shared
        return converted | {
            "context_length": CONTEXT_LENGTH,
            "attention.head_count_kv": [n_kv if kind == "attention" else 0 for kind in kinds],
            "expert_count": int(config.get("num_local_experts") or 0),
            "expert_used_count": int(config.get("num_experts_per_tok") or 0),
            "expert_shared_feed_forward_length": shared,
            "rope.scaling.finetuned": False,
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            n = config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
            return ((name, interleave(x, int(n))),)
        if not config.get("num_local_experts"):
            name = name.replace("_shexp", "")
        if "ffn_up" in name:
            gate, up = np.split(x, 2, axis=-2)
            return (name.replace("ffn_up", "ffn_gate"), gate), (name, up)
        return convert_ssm2_tensor(name, x, int(config["mamba_n_groups"]))
