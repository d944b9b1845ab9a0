"""Hugging Face folders of Qwen3-Next."""

from typing import Any

import numpy as np

from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.keys import first
from engine.convert.huggingface.mamba import convert_ssm_tensor
from engine.convert.huggingface.names import QK_NORMS, below
from engine.convert.huggingface.qwen2moe import Qwen2MoEConverter

LINEAR = below(
    "model.layers",
    {
        "post_attention_layernorm": "post_attention_norm",
        "linear_attn.conv1d": "ssm_conv1d",
        "linear_attn.A_log": "ssm_a",
        "linear_attn.dt_bias": "ssm_dt.bias",
        "linear_attn.norm": "ssm_norm",
        "linear_attn.out_proj": "ssm_out",
    },
)


class Qwen3NextConverter(Qwen2MoEConverter):
    architecture = "qwen3next"
    model_classes = ("Qwen3NextForCausalLM",)
    renormalises = True
    ignored = ("mtp.", "model.mtp.")  # predicts further tokens
    config_defaults = {"partial_rotary_factor": 0.25}
    supported_settings = Qwen2MoEConverter.supported_settings | {"attention_bias": (False,)}
    tensor_names = (
        Qwen2MoEConverter.tensor_names
        | QK_NORMS
        | LINEAR
        | below(
            "model.layers",
            {"linear_attn.in_proj_qkvz": "attn_qkv", "linear_attn.in_proj_ba": "ssm_ba"},
        )
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return super().convert_keys(config) | delta_net(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name.endswith("attn_qkv.weight"):
            qkv, z = by_kind(x, config)
            return (name, qkv), (name.replace("attn_qkv", "attn_gate"), z)
        return convert_delta_tensor(name, x)


def delta_net(config: Config) -> dict[str, Any]:
    """Keys of the gated delta net, and which layers have it."""
    n_heads = int(first(config, "linear_num_value_heads"))
    kinds = config.get("layer_types")
    keys: dict[str, Any] = {"full_attention_interval": int(config.get("full_attention_interval", 4))}
    if kinds is not None:
        keys["attention.recurrent_layers"] = [kind == "linear_attention" for kind in kinds]
    return keys | {
        "ssm.conv_kernel": int(first(config, "linear_conv_kernel_dim")),
        "ssm.state_size": int(first(config, "linear_key_head_dim")),
        "ssm.group_count": int(first(config, "linear_num_key_heads")),
        "ssm.time_step_rank": n_heads,
        "ssm.inner_size": int(first(config, "linear_value_head_dim")) * n_heads,
    }


def convert_delta_tensor(name: str, x: Array) -> Converted:
    """The norms have one less in the checkpoint, except that of the delta net's output."""
    if name.endswith("norm.weight") and not name.endswith("ssm_norm.weight"):
        return ((name, x + np.float32(1)),)
    return convert_ssm_tensor(name, x)


def by_kind(x: Array, config: Config) -> tuple[Array, Array]:
    """Rows of q, k, v and z of each key head to all q, all k and all v; and z."""
    n_keys = int(first(config, "linear_num_key_heads"))
    d = int(first(config, "linear_key_head_dim"))
    heads = x.reshape(n_keys, -1, x.shape[-1])
    n = (heads.shape[1] - 2 * d) // 2
    q, k, v, z = (part.reshape(-1, x.shape[-1]) for part in np.split(heads, (d, 2 * d, 2 * d + n), axis=1))
    return np.concatenate([q, k, v]), z
