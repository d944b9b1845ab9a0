"""Hugging Face folders of Qwen 3.5, the text part."""

from typing import Any

import numpy as np

from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.keys import common, first, rope_parameters
from engine.convert.huggingface.names import QK_NORMS, STANDARD, below
from engine.convert.huggingface.qwen3next import LINEAR, convert_delta_tensor, delta_net

SECTIONS = (11, 11, 10)  # of the rotary embedding, for the positions of images

IN_PROJECTIONS = below(
    "model.layers",
    {
        "linear_attn.in_proj_qkv": "attn_qkv",
        "linear_attn.in_proj_z": "attn_gate",
        "linear_attn.in_proj_a": "ssm_alpha",
        "linear_attn.in_proj_b": "ssm_beta",
    },
)


class Qwen35Converter(Converter):
    architecture = "qwen35"
    model_classes = ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration")
    ignored = ("mtp.", "model.mtp.", "model.visual.", "visual.")
    config_defaults = {"partial_rotary_factor": 0.25}
    supported_settings = Converter.supported_settings | {"attention_bias": (False,)}
    tensor_names = STANDARD | QK_NORMS | LINEAR | IN_PROJECTIONS

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return common(config) | qwen35_keys(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return convert_delta_tensor(name, tiled(name, x, config))


def qwen35_keys(config: Config) -> dict[str, Any]:
    sections = rope_parameters(config).get("mrope_section") or SECTIONS
    return delta_net(config) | {"rope.dimension_sections": [*map(int, sections), 0][:4]}


def tiled(name: str, x: Array, config: Config) -> Array:
    """Value heads from neighbours that share a key head to the order in which key heads take turns."""
    n_keys, n_values = (int(first(config, f"linear_num_{kind}_heads")) for kind in ("key", "value"))
    before = 0
    if name.endswith(("attn_qkv.weight", "ssm_conv1d.weight")):
        before = 2 * n_keys * int(first(config, "linear_key_head_dim"))
    elif name.endswith("ssm_out.weight"):
        return np.ascontiguousarray(_take_turns(x.T, n_keys, n_values).T)
    elif not name.endswith(
        ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a.weight", "ssm_dt.bias")
    ):
        return x
    return np.concatenate([x[:before], _take_turns(x[before:], n_keys, n_values)])


def _take_turns(x: Array, n_keys: int, n_values: int) -> Array:
    heads = x.reshape(n_keys, n_values // n_keys, x.shape[0] // n_values, *x.shape[1:])
    return heads.swapaxes(0, 1).reshape(x.shape)
