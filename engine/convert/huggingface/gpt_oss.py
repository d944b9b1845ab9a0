"""Hugging Face folders of GPT-OSS, whose experts are MXFP4 blocks in the published folders."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import STANDARD


class GPTOSSConverter(Converter):
    architecture = "gpt-oss"
    model_classes = ("GptOssForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.self_attn.sinks": "blk.{i}.attn_sinks",
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
        "model.layers.{i}.mlp.router": "blk.{i}.ffn_gate_inp",
        "model.layers.{i}.mlp.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
        "model.layers.{i}.mlp.experts.gate_up_proj_bias": "blk.{i}.ffn_gate_up_exps.bias",
        "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.mlp.experts.down_proj_bias": "blk.{i}.ffn_down_exps.bias",
    }
    supported_settings = Converter.supported_settings | {"swiglu_limit": (7.0,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        keys.windows_but_each(config, 2)
        converted = keys.common(config) | {"attention.sliding_window": int(config["sliding_window"])}
        return converted | {"expert_feed_forward_length": int(config["intermediate_size"])}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "_exps.weight" in name and x.dtype != "uint8":  # published MXFP4 blocks are in rows already
            x = x.swapaxes(1, 2)  # [expert, in, out]
        if "gate_up" not in name:
            return ((name, x),)
        # The rows of gate and up alternate.
        return ((name.replace("gate_up", "gate"), x[:, ::2]), (name.replace("gate_up", "up"), x[:, 1::2]))
