"""Hugging Face folders of Jina embeddings 2."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.bert import BertConverter
from engine.convert.huggingface.names import below

_LAYER = {
    "attention.self.layer_norm_q": "attn_q_norm",
    "attention.self.layer_norm_k": "attn_k_norm",
    "layer_norm_1": "attn_norm_2",
    "mlp.gated_layers": "ffn_up",
    "mlp.wo": "ffn_down",
    "mlp.layernorm": "layer_output_norm",
    "mlp.up_gated_layer": "ffn_up",  # this and the next two: of the model for code
    "mlp.down_layer": "ffn_down",
    "layer_norm_2": "layer_output_norm",
}


class JinaBertV2Converter(Converter):
    architecture = "jina-bert-v2"
    model_classes = ("JinaBertModel", "JinaBertForMaskedLM")
    tensor_names = BertConverter.tensor_names | {
        f"{prefix}{name}": target
        for prefix in ("", "bert.")
        for name, target in below("encoder.layer", _LAYER).items()
    }
    ignored = BertConverter.ignored
    supported_settings = {
        "hidden_act": ("gelu",),
        "feed_forward_type": ("geglu",),
        "position_embedding_type": ("alibi",),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | {"attention.causal": False}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return () if name.startswith("cls.") else ((name, x),)  # the head of its pre-training
