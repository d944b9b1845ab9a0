"""BERT: learned positions, GELU (exact form), biases everywhere (Devlin 2018, arXiv 1810.04805)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.convert.huggingface.names import below
from engine.nn.encoder import Encoder
from engine.nn.hparams import POOLING, HParams, Keys

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


class Bert(Encoder):
    name = "bert"
    activation = "gelu_erf"
    huggingface = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")
    names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    } | below("encoder.layer", _LAYER)
    names |= {f"bert.{name}": target for name, target in names.items()}
    names |= {"bert.pooler.dense": "cls", "classifier": "cls.output"}
    unused = ("embeddings.position_ids", "pooler.", "cls.", "bert.embeddings.position_ids", "bert.pooler.")

    settings = {"hidden_act": ("gelu",), "position_embedding_type": ("absolute",)}  # noqa: RUF012

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common(config) | {"attention.causal": False}
        return found | ({"pooling_type": POOLING.index("rank")} if _ranks(config) else {})

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        if name.startswith("cls.") and not _ranks(config):  # a head for what it was trained with first
            return ()
        return ((name, x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.encoder(rope=None, max_positions=keys.integer("context_length"))


def _ranks(config: dict[str, Any]) -> bool:
    return config.get("architectures") == ["BertForSequenceClassification"]


ARCHITECTURE = Bert
