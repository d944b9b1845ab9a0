"""Hugging Face folders of Granite 4 with Mamba layers, and of Bamba."""

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
    model_classes = ("GraniteMoeHybridForCausalLM", "BambaForCausalLM")
    supported_settings = GraniteConverter.supported_settings | {
        "position_embedding_type": ("nope",),
        "mamba_proj_bias": (False,),
        "normalization_function": ("rmsnorm",),
    }
    tensor_names = (
        GraniteConverter.tensor_names
        | MAMBA
        | {"model.final_layernorm": "output_norm"}
        | below(
            "model.layers",
            {
                "shared_mlp.input_linear": "ffn_up_shexp",
                "shared_mlp.output_linear": "ffn_down_shexp",
                "block_sparse_moe.input_linear": "ffn_up_exps",
                "block_sparse_moe.output_linear": "ffn_down_exps",
                "block_sparse_moe.router.layer": "ffn_gate_inp",
                "pre_ff_layernorm": "ffn_norm",
                "feed_forward.gate_proj": "ffn_gate",
                "feed_forward.up_proj": "ffn_up",
                "feed_forward.down_proj": "ffn_down",
            },
        )
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        check_time_steps(config)
        n_kv = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        mamba = mamba_keys(config, int(config["mamba_expand"]) * int(config["hidden_size"]))
        if is_bamba(config):
            head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
            layers, attending = range(int(config["num_hidden_layers"])), config["attn_layer_indices"]
            return (
                keys.common(config)
                | mamba
                | {
                    "attention.head_count_kv": [n_kv if i in attending else 0 for i in layers],
                    "rope.dimension_count": int(config.get("attn_rotary_emb") or head_dim // 2),
                    "rope.scaling.finetuned": True,
                }
            )
        kinds = keys.first(config, "layer_types", "layers_block_type")
        converted = super().convert_keys(config) | mamba
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
        if "ffn_up" in name and not is_bamba(config):  # both in one
            gate, up = np.split(x, 2, axis=-2)
            return (name.replace("ffn_up", "ffn_gate"), gate), (name, up)
        return convert_ssm2_tensor(name, x, int(config["mamba_n_groups"]))


def is_bamba(config: Config) -> bool:
    return bool(config["architectures"] == ["BambaForCausalLM"])
