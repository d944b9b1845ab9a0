"""Hugging Face folders of DBRX."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below

_ATTENTION, _MLP = "norm_attn_norm", "ffn.experts.mlp"


class DBRXConverter(Converter):
    architecture = "dbrx"
    model_classes = ("DbrxForCausalLM",)
    tensor_names = {
        "transformer.wte": "token_embd",
        "transformer.norm_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.blocks",
        {
            f"{_ATTENTION}.norm_1": "attn_norm",
            f"{_ATTENTION}.attn.Wqkv": "attn_qkv",
            f"{_ATTENTION}.attn.out_proj": "attn_output",
            f"{_ATTENTION}.norm_2": "attn_output_norm",
            "ffn.router.layer": "ffn_gate_inp",
            f"{_MLP}.w1": "ffn_gate_exps",
            f"{_MLP}.v1": "ffn_up_exps",
            f"{_MLP}.w2": "ffn_down_exps",
        },
    )
    supported_settings = {
        "ffn_config.ffn_act_fn.name": ("silu",),
        "ffn_config.moe_normalize_expert_weights": (1, 1.0),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        attention, experts = config["attn_config"], config["ffn_config"]
        theta = attention.get("rope_theta") or keys.rope_parameters(config).get("rope_theta", 10000.0)
        if not attention.get("clip_qkv"):
            keys.refuse("attn_config.clip_qkv", None, "a number")
        return keys.common(config | {"rope_theta": float(theta)}) | {
            "feed_forward_length": int(experts["ffn_hidden_size"]),
            "attention.head_count_kv": int(attention["kv_n_heads"]),
            "attention.clamp_kqv": float(attention["clip_qkv"]),
            "attention.layer_norm_epsilon": 1e-5,
            "expert_count": int(experts["moe_num_experts"]),
            "expert_used_count": int(experts["moe_top_k"]),
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "_exps" not in name:
            return ((name, x),)
        by_expert = x.reshape(int(config["ffn_config"]["moe_num_experts"]), -1, x.shape[-1])
        return ((name, by_expert.swapaxes(1, 2) if "down" in name else by_expert),)
