"""Hugging Face folders of Jamba."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.falcon_h1 import MAMBA
from engine.convert.huggingface.mamba import convert_ssm_tensor
from engine.convert.huggingface.names import STANDARD, below, experts


class JambaConverter(Converter):
    architecture = "jamba"
    model_classes = ("JambaForCausalLM",)
    supported_settings = Converter.supported_settings | {"mamba_proj_bias": (False,)}
    tensor_names = (
        STANDARD
        | MAMBA
        | experts("feed_forward", "gate_proj", "up_proj", "down_proj", "router")
        | {"model.final_layernorm": "output_norm"}
        | below(
            "model.layers",
            {
                "pre_ff_layernorm": "ffn_norm",
                "feed_forward.gate_proj": "ffn_gate",
                "feed_forward.up_proj": "ffn_up",
                "feed_forward.down_proj": "ffn_down",
                "mamba.x_proj": "ssm_x",
                "mamba.dt_proj": "ssm_dt",
                "mamba.dt_layernorm": "ssm_dt_norm",
                "mamba.b_layernorm": "ssm_b_norm",
                "mamba.c_layernorm": "ssm_c_norm",
            },
        )
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        n_embd, n_layer = int(config["hidden_size"]), int(config["num_hidden_layers"])
        period, offset = int(config["attn_layer_period"]), int(config["attn_layer_offset"])
        n_kv, rank = int(config["num_key_value_heads"]), config.get("mamba_dt_rank", "auto")
        return keys.common(config) | {
            "attention.head_count_kv": [n_kv if i % period == offset else 0 for i in range(n_layer)],
            "ssm.conv_kernel": int(config["mamba_d_conv"]),
            "ssm.inner_size": int(config["mamba_expand"]) * n_embd,
            "ssm.state_size": int(config["mamba_d_state"]),
            "ssm.time_step_rank": -(n_embd // -16) if rank == "auto" else int(rank),
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return convert_ssm_tensor(name, x)
