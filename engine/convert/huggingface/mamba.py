"""Hugging Face folders of Mamba and Falcon Mamba."""

from typing import Any

import numpy as np

from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.keys import first
from engine.convert.huggingface.names import below

CONTEXT_LENGTH = 1 << 20  # of models whose state has no end; llama.cpp's number


class MambaConverter(Converter):
    architecture = "mamba"
    model_classes = ("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM")
    supported_settings = Converter.supported_settings | {"use_bias": (False,)}
    tied_by_default = True
    tensor_names = {
        "backbone.embeddings": "token_embd",
        "backbone.norm_f": "output_norm",
        "lm_head": "output",
    } | below(
        "backbone.layers",
        {
            "norm": "attn_norm",
            "mixer.in_proj": "ssm_in",
            "mixer.conv1d": "ssm_conv1d",
            "mixer.x_proj": "ssm_x",
            "mixer.dt_proj": "ssm_dt",
            "mixer.A_log": "ssm_a",
            "mixer.D": "ssm_d",
            "mixer.out_proj": "ssm_out",
        },
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        n_embd = int(first(config, "hidden_size", "d_model"))
        return sizes(config) | {
            "ssm.inner_size": int(first(config, "intermediate_size", "d_inner", default=2 * n_embd)),
            "ssm.state_size": int(first(config, "state_size", "d_state", default=16)),
            "ssm.time_step_rank": int(first(config, "time_step_rank", "dt_rank", default=-(n_embd // -16))),
            "ssm.dt_b_c_rms": config.get("model_type") == "falcon_mamba",
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return convert_ssm_tensor(name, x)


def sizes(config: Config) -> dict[str, Any]:
    """Keys of models without attention and feed-forward networks."""
    return {
        "context_length": CONTEXT_LENGTH,
        "embedding_length": int(first(config, "hidden_size", "d_model")),
        "block_count": int(first(config, "num_hidden_layers", "n_layer")),
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": float(
            first(config, "layer_norm_epsilon", "rms_norm_eps", default=1e-5)
        ),
        "ssm.conv_kernel": int(first(config, "conv_kernel", "d_conv", default=4)),
    }


def convert_ssm_tensor(name: str, x: Array) -> Converted:
    """GGUF stores A itself, not its logarithm, without a name suffix, and convolutions without the extra
    axis.
    """
    if name.endswith("ssm_a.weight"):
        return ((name.removesuffix(".weight"), -np.exp(x)),)
    if name.endswith("ssm_d.weight"):
        return ((name.removesuffix(".weight"), x),)
    if name.endswith("ssm_conv1d.weight"):
        return ((name, x[:, 0]),)
    return ((name, x),)
