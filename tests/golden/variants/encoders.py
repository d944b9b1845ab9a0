"""BERT and Nomic BERT, which make embeddings, and models with a head, which rank."""

from __future__ import annotations

from typing import Any

import gguf
from variant import VOCAB, Variant

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-3,
    "attn_implementation": "eager",
}
# Of tanh neither the ends nor only the middle.
HEAD = {"pooler.dense.weight": 0.3, "classifier.dense.weight": 0.3, "classifier.weight": 3.0}
SMALL = BASE | {"num_hidden_layers": 1, "intermediate_size": 16}
# As nomic-embed-text-v1.5 has it, and the converter asks for.
NOMIC = {
    "n_embd": 32,
    "n_head": 2,
    "n_inner": 64,
    "n_layer": 2,
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "layer_norm_epsilon": 1e-3,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "activation_function": "swiglu",
    "causal": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
}
GEMMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 256,
    "sliding_window": 32,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "use_bidirectional_attention": True,
    "attn_implementation": "eager",
}
MODERN: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 256,
    "local_attention": 32,
    "norm_eps": 1e-5,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


def no_rms(keys: dict[str, Any], tensors: dict[str, Any]) -> None:
    """`norm_eps` becomes this key as well, which says nothing of LayerNorms."""
    del keys["modern-bert.attention.layer_norm_rms_epsilon"]


def ranks(keys: dict[str, Any], tensors: dict[str, Any]) -> None:
    """The converter learns what a model is for from files that come with sentence-transformers only."""
    keys["bert.pooling_type"] = (gguf.PoolingType.RANK.value, gguf.GGUFValueType.UINT32, None)
    del keys["bert.classifier.output_labels"]


VARIANTS = {
    "bert": Variant(
        "rows see each other both ways, norms behind, learned positions, token types",
        "BertModel",
        BASE | {"max_position_embeddings": 256},
        hf=True,
    ),
    "nomic-bert": Variant(
        "rotated halves, a gated feed-forward without biases",
        "NomicBertModel",
        BASE | {"max_position_embeddings": 2048},
        published=NOMIC,
        hf=True,
    ),
    "gemma-embedding": Variant(
        "Gemma 3's layers, windows that reach both ways",
        "Gemma3TextModel",
        GEMMA,
        embedding_std=0.06,
        hf=True,
    ),
    "modern-bert": Variant(
        "norms before the blocks, GeGLU in one matrix, windows both ways in two of three layers",
        "ModernBertModel",
        MODERN,
        published={"global_attn_every_n_layers": 3, "layer_norm_eps": 1e-5},
        fix=no_rms,
        hf=True,
    ),
    "bert-rank": Variant(
        "a head of two layers, token types of two sentences",
        "BertForSequenceClassification",
        SMALL | {"max_position_embeddings": 256, "num_labels": 1},
        gains=HEAD,
        fix=ranks,
        hf=True,
    ),
    "xlm-roberta-rank": Variant(
        "a head by other names, several scores, positions that begin behind the padding's",
        "XLMRobertaForSequenceClassification",
        SMALL | {"max_position_embeddings": 258, "type_vocab_size": 1, "num_labels": 3, "pad_token_id": 1},
        gains=HEAD,
        fix=ranks,
    ),
}
