"""Hugging Face folders of Falcon, in its three layouts of Q, K and V."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below


def query_heads(config: Config) -> int:
    return int(config.get("num_attention_heads") or config["n_head"])


def kv_heads(config: Config) -> int:
    """Older models have one unless config.json says otherwise; newer ones state the number."""
    if config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or config.get("n_head_kv") or query_heads(config))
    return 1 if config.get("multi_query", True) else query_heads(config)


class FalconConverter(Converter):
    architecture = "falcon"
    model_classes = ("FalconForCausalLM", "RWForCausalLM")
    tied_by_default = True
    supported_settings = {
        "activation": ("gelu",),
        "alibi": (False,),
        "bias": (False,),
        "apply_residual_connection_post_layernorm": (False,),
    }
    tensor_names = {
        "transformer.word_embeddings": "token_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "input_layernorm": "attn_norm",
            "ln_mlp": "attn_norm",
            "ln_attn": "attn_norm_2",
            "self_attention.query_key_value": "attn_qkv",
            "self_attention.dense": "attn_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        if not config.get("new_decoder_architecture"):
            keys.only(config, "parallel_attn", True)
        converted = {"context_length": 2048} | keys.common({"max_position_embeddings": 2048} | config)
        converted["attention.head_count_kv"] = kv_heads(config)
        converted["tensor_data_layout"] = "jploski"
        return converted

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if ".attn_qkv." not in name:
            return ((name, x),)
        # Groups of query heads, each with its one key and one value head behind it.
        n_head, n_kv = query_heads(config), kv_heads(config)
        groups = x.reshape(n_kv, n_head // n_kv + 2, -1, *x.shape[1:])
        parts = [groups[:, :-2], groups[:, -2:-1], groups[:, -1:]]
        return ((name, np.concatenate([p.reshape(-1, *x.shape[1:]) for p in parts])),)
