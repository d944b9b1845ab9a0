"""Hugging Face folders of InternLM 2 and 2.5."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below, interleave


class InternLM2Converter(Converter):
    architecture = "internlm2"
    model_classes = ("InternLM2ForCausalLM",)
    tensor_names = {
        "model.tok_embeddings": "token_embd",
        "model.norm": "output_norm",
        "output": "output",
    } | below(
        "model.layers",
        {
            "attention_norm": "attn_norm",
            "attention.wqkv": "attn_qkv",
            "attention.wo": "attn_output",
            "ffn_norm": "ffn_norm",
            "feed_forward.w1": "ffn_gate",
            "feed_forward.w3": "ffn_up",
            "feed_forward.w2": "ffn_down",
        },
    )
    supported_settings = Converter.supported_settings | {"bias": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        # Dynamic scaling changes nothing within max_position_embeddings, and a context is not longer here.
        dynamic = keys.rope_parameters(config).get("rope_type") == "dynamic"
        return keys.common(config | {"rope_scaling": None} if dynamic else config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if ".attn_qkv." not in name:
            return ((name, x),)
        # Groups of query heads, each with its one key and one value head behind it.
        n_head, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
        groups = x.reshape(n_kv, n_head // n_kv + 2, -1, *x.shape[1:])
        q, k, v = (
            np.reshape(part, (-1, *x.shape[1:])) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])
        )
        parts = {"q": interleave(q, n_head), "k": interleave(k, n_kv), "v": v}
        return [(name.replace("qkv", kind), part) for kind, part in parts.items()]
