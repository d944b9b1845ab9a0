"""Hugging Face folders of BERT and its rerankers."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below
from engine.hparams import POOLING

_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


class BertConverter(Converter):
    architecture = "bert"
    model_classes = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")
    tensor_names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    } | below("encoder.layer", _LAYER)
    tensor_names |= {f"bert.{name}": target for name, target in tensor_names.items()}
    tensor_names |= {"bert.pooler.dense": "cls", "classifier": "cls.output"}
    ignored = ("embeddings.position_ids", "pooler.", "cls.", "bert.embeddings.position_ids", "bert.pooler.")
    supported_settings = {"hidden_act": ("gelu",), "position_embedding_type": ("absolute",)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config) | {"attention.causal": False}
        return converted | ({"pooling_type": POOLING.index("rank")} if _is_reranker(config) else {})

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name.startswith("cls.") and not _is_reranker(config):  # the head of its pre-training
            return ()
        return ((name, x),)


def _is_reranker(config: Config) -> bool:
    return config.get("architectures") == ["BertForSequenceClassification"]
