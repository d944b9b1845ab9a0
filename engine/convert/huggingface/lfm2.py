"""Hugging Face folders of LFM2."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import STANDARD


class LFM2Converter(Converter):
    architecture = "lfm2"
    model_classes: ClassVar[tuple[str, ...]] = ("Lfm2ForCausalLM", "LFM2ForCausalLM")
    supported_settings = Converter.supported_settings | {"conv_bias": (False,)}
    tied_by_default = True
    tensor_names = STANDARD | {
        "model.embedding_norm": "token_embd_norm",
        "model.layers.{i}.operator_norm": "blk.{i}.attn_norm",
        "model.layers.{i}.ffn_norm": "blk.{i}.ffn_norm",
        "model.layers.{i}.conv.conv": "blk.{i}.shortconv.conv",
        "model.layers.{i}.conv.in_proj": "blk.{i}.shortconv.in_proj",
        "model.layers.{i}.conv.out_proj": "blk.{i}.shortconv.out_proj",
        "model.layers.{i}.self_attn.out_proj": "blk.{i}.attn_output",
        "model.layers.{i}.self_attn.q_layernorm": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.k_layernorm": "blk.{i}.attn_k_norm",
        "model.layers.{i}.feed_forward.w1": "blk.{i}.ffn_gate",
        "model.layers.{i}.feed_forward.w2": "blk.{i}.ffn_down",
        "model.layers.{i}.feed_forward.w3": "blk.{i}.ffn_up",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return lfm2_keys(config) | {"feed_forward_length": feed_forward_length(config)}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return ((name, x[:, 0]),) if name.endswith("shortconv.conv.weight") else ((name, x),)


def lfm2_keys(config: Config) -> dict[str, Any]:
    converted = keys.common(config)
    converted["attention.layer_norm_rms_epsilon"] = converted.pop("attention.layer_norm_epsilon")
    kv_heads = int(keys.first(config, "num_key_value_heads"))
    attends = layers_with_attention(config)
    return converted | {
        "attention.head_count_kv": [kv_heads if attention else 0 for attention in attends],
        "shortconv.l_cache": int(keys.first(config, "conv_L_cache", default=3)),
    }


def layers_with_attention(config: Config) -> list[bool]:
    """Of each layer, from `layer_types` or the older `full_attn_idxs`."""
    n_layer = int(keys.first(config, "num_hidden_layers"))
    if kinds := config.get("layer_types"):
        return [kind == "full_attention" for kind in kinds]
    indices = config.get("full_attn_idxs") or range(n_layer)
    return [i in indices for i in range(n_layer)]


def feed_forward_length(config: Config) -> int:
    """Two thirds of the width that is stated, times a factor, rounded up; or the width itself."""
    width = int(keys.first(config, "block_ff_dim", "intermediate_size"))
    if not config.get("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor = config.get("block_ffn_dim_multiplier", 1.0)
    if factor is not None:
        width = int(factor * width)
    multiple = int(config.get("block_multiple_of", 256))
    return -(-width // multiple) * multiple
