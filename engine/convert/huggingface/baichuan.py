"""Hugging Face folders of Baichuan 1 and 2."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import STANDARD, interleave

VOCABULARY_OF_2 = 125696  # the rows of its head are scaled to a length of 1, and no setting says so


class BaichuanConverter(Converter):
    architecture = "baichuan"
    model_classes = ("BaichuanForCausalLM", "BaiChuanForCausalLM")
    tensor_names = STANDARD | {"model.layers.{i}.self_attn.W_pack": "blk.{i}.attn_qkv"}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        named = {"max_position_embeddings": config.get("model_max_length")} | config
        converted = keys.common({"rope_theta": 10000.0} | named)
        return converted | {"tensor_data_layout": "Meta AI original pth"}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name == "output.weight" and config["vocab_size"] == VOCABULARY_OF_2:
            return ((name, x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)),)
        if ".attn_qkv." not in name:
            return ((name, x),)
        q, k, v = np.split(x, 3)
        n_head = config["num_attention_heads"]
        parts = {"q": interleave(q, n_head), "k": interleave(k, n_head), "v": v}
        return [(name.replace("qkv", kind), part) for kind, part in parts.items()]
