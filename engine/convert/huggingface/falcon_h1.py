"""Hugging Face folders of Falcon-H1."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.mamba2 import check_time_steps, convert_ssm2_tensor
from engine.convert.huggingface.names import STANDARD, below

MAMBA = below(
    "model.layers",
    {
        "mamba.in_proj": "ssm_in",
        "mamba.conv1d": "ssm_conv1d",
        "mamba.dt_bias": "ssm_dt.bias",
        "mamba.A_log": "ssm_a",
        "mamba.D": "ssm_d",
        "mamba.norm": "ssm_norm",
        "mamba.out_proj": "ssm_out",
    },
)
# The setting that multiplies a tensor.
MULTIPLIERS = {
    "output": ("lm_head_multiplier",),
    "token_embd": ("embedding_multiplier",),
    "attn_q": ("attention_in_multiplier",),
    "attn_k": ("key_multiplier", "attention_in_multiplier"),
    "attn_v": ("attention_in_multiplier",),
    "attn_output": ("attention_out_multiplier",),
    "ssm_in": ("ssm_in_multiplier",),
    "ssm_out": ("ssm_out_multiplier",),
}


class FalconH1Converter(Converter):
    architecture = "falcon-h1"
    model_classes = ("FalconH1ForCausalLM",)
    supported_settings = Converter.supported_settings | {
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "projectors_bias": (False,),
        "mamba_proj_bias": (False,),
        "mamba_rms_norm": (False,),  # its norm comes before the gate
    }
    tensor_names = (
        STANDARD
        | MAMBA
        | {
            "model.final_layernorm": "output_norm",
            "model.layers.{i}.pre_ff_layernorm": "blk.{i}.ffn_norm",
            "model.layers.{i}.feed_forward.gate_proj": "blk.{i}.ffn_gate",
            "model.layers.{i}.feed_forward.up_proj": "blk.{i}.ffn_up",
            "model.layers.{i}.feed_forward.down_proj": "blk.{i}.ffn_down",
        }
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        check_time_steps(config)
        converted = keys.common(config)
        converted.pop("rope.dimension_count", None)
        return converted | mamba_keys(config, int(keys.first(config, "mamba_d_ssm")))

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        part = name.removesuffix(".weight").rpartition(".")[2]
        for setting in MULTIPLIERS.get(part, ()):
            x = x * np.float32(config.get(setting, 1.0))
        if part in ("ffn_gate", "ffn_down"):
            x = x * np.float32((config.get("mlp_multipliers") or (1.0, 1.0))[part == "ffn_down"])
        if part == "ssm_in":
            x = x * _of_rows(config)[:, None]
        if part == "ffn_norm":  # llama.cpp has this name without an end
            return ((name.removesuffix(".weight"), x),)
        return convert_ssm2_tensor(name, x, int(config["mamba_n_groups"]))


def _of_rows(config: Config) -> Array:
    """What multiplies the rows for z, x, B, C and the time steps."""
    n_inner, n_keys = int(config["mamba_d_ssm"]), int(config["mamba_n_groups"]) * int(config["mamba_d_state"])
    sizes = (n_inner, n_inner, n_keys, n_keys, int(config["mamba_n_heads"]))
    return np.repeat(np.array(config.get("ssm_multipliers") or (1.0,) * 5, np.float32), sizes)


def mamba_keys(config: Config, n_inner: int) -> dict[str, Any]:
    """Keys of Mamba 2 inside of a hybrid model."""
    return {
        "ssm.conv_kernel": int(config["mamba_d_conv"]),
        "ssm.inner_size": n_inner,
        "ssm.state_size": int(config["mamba_d_state"]),
        "ssm.time_step_rank": int(config["mamba_n_heads"]),
        "ssm.group_count": int(config["mamba_n_groups"]),
    }
