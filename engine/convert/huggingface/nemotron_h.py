"""Hugging Face folders of Nemotron-H, dense."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.mamba import CONTEXT_LENGTH
from engine.convert.huggingface.mamba2 import Mamba2Converter, check_time_steps, convert_ssm2_tensor
from engine.convert.huggingface.names import below, interleave

KINDS = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}


class NemotronHConverter(Converter):
    architecture = "nemotron_h"
    model_classes = ("NemotronHForCausalLM",)
    kinds: ClassVar[str] = "M*-"  # of layers, see `pattern_of`
    supported_settings = {
        "mlp_hidden_act": ("relu2",),
        "mamba_hidden_act": ("silu",),
        "use_bias": (False,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "mamba_proj_bias": (False,),
    }
    tensor_names = Mamba2Converter.tensor_names | below(
        "backbone.layers",
        {
            "mixer.q_proj": "attn_q",
            "mixer.k_proj": "attn_k",
            "mixer.v_proj": "attn_v",
            "mixer.o_proj": "attn_output",
            "mixer.up_proj": "ffn_up",
            "mixer.down_proj": "ffn_down",
        },
    )

    @classmethod
    def converts(cls, config: Config) -> bool:
        return "E" not in pattern_of(config)

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        check_time_steps(config)
        pattern = pattern_of(config)
        if set(pattern) - set(cls.kinds):
            keys.refuse("hybrid_override_pattern", pattern, *cls.kinds)
        n_heads, n_ff = int(config["mamba_num_heads"]), int(config["intermediate_size"])
        n_kv, head_dim = int(config["num_key_value_heads"]), int(config["head_dim"])
        return {
            "context_length": CONTEXT_LENGTH,
            "embedding_length": int(config["hidden_size"]),
            "block_count": len(pattern),
            "feed_forward_length": [n_ff if kind == "-" else 0 for kind in pattern],
            "attention.head_count": int(config["num_attention_heads"]),
            "attention.head_count_kv": [n_kv if kind == "*" else 0 for kind in pattern],
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
            "attention.layer_norm_epsilon": float(keys.first(config, "layer_norm_epsilon", "norm_eps")),
            "rope.dimension_count": head_dim,
            "rope.scaling.finetuned": False,
            "ssm.conv_kernel": int(config["conv_kernel"]),
            "ssm.inner_size": n_heads * int(config["mamba_head_dim"]),
            "ssm.state_size": int(config["ssm_state_size"]),
            "ssm.time_step_rank": n_heads,
            "ssm.group_count": int(config["n_groups"]),
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name.endswith(("attn_q.weight", "attn_k.weight")):  # as llama.cpp does, without an effect
            n = config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
            return ((name, interleave(x, int(n))),)
        return convert_ssm2_tensor(name, x, int(config["n_groups"]))


def pattern_of(config: Config) -> str:
    """M, *, - or E for each layer: Mamba 2, attention, a feed-forward network, experts."""
    if pattern := config.get("hybrid_override_pattern"):
        return str(pattern)
    return "".join(KINDS.get(kind, "?") for kind in keys.first(config, "layers_block_type"))
