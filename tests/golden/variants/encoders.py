"""BERT and Nomic BERT, which make embeddings, and models with a head, which rank."""

from __future__ import annotations

import re
from typing import Any

import gguf
import torch
from torch.nn.functional import gelu
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


class Gated(torch.nn.Module):
    """act(gate x) * up x, the rows of both in one matrix; `last`: the gate's behind the others."""

    def __init__(self, config: Any, last: bool) -> None:
        super().__init__()
        self.both = torch.nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.both(x).chunk(2, dim=-1)
        return gate * gelu(up) if self.last else gelu(gate) * up


class AttentionOfCode(torch.nn.Module):
    """A norm more behind attention, of the layer's input once more."""

    def __init__(self, attention: Any, config: Any) -> None:
        super().__init__()
        self.inner, self.again = attention, torch.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        y, weights = self.inner(x, *args, **kwargs)
        return self.again(x + y), weights


class Nothing(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> float:
        return 0.0


def jina(of_code: bool) -> Any:
    """Makes of a BERT what Jina's own class is: ALiBi both ways, GeGLU; `of_code`: more norms."""

    def extend(model: Any) -> None:
        config = model.config
        n = config.num_attention_heads
        slopes = torch.tensor([2 ** (-8 * (i + 1) / n) for i in range(n)])

        def biased(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            positions = torch.arange(args[0].shape[1])
            bias = -slopes[:, None, None] * (positions[None, :] - positions[:, None]).abs()
            return args, kwargs | {"attention_mask": bias[None]}

        model.embeddings.position_embeddings = Nothing()
        for layer in model.encoder.layer:
            attention = layer.attention.self
            attention.register_forward_pre_hook(biased, with_kwargs=True)
            layer.intermediate = Gated(config, last=of_code)
            if of_code:
                for part in ("query", "key"):
                    norm = torch.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
                    setattr(attention, part, torch.nn.Sequential(getattr(attention, part), norm))
                layer.attention = AttentionOfCode(layer.attention, config)

    return extend


def jina_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the published folders name them."""
    of_code = any(".again." in name for name in tensors)
    renamed = {}
    for name, x in tensors.items():
        for old, new in (
            (r"\.inner\.", "."),
            (r"\.attention\.again\.", ".layer_norm_1."),
            (r"\.self\.(query|key)\.0\.", r".self.\1."),
            (r"\.self\.(q|k)(uery|ey)\.1\.", r".self.layer_norm_\1."),
            (r"\.intermediate\.both\.", ".mlp.up_gated_layer." if of_code else ".mlp.gated_layers."),
            (r"(layer\.\d+)\.output\.dense", r"\1.mlp." + ("down_layer" if of_code else "wo")),
            (r"(layer\.\d+)\.output\.LayerNorm", r"\1." + ("layer_norm_2" if of_code else "mlp.layernorm")),
        ):
            name = re.sub(old, new, name)
        renamed[name] = x
    return renamed


JINA: dict[str, Any] = {
    "architectures": ["JinaBertForMaskedLM"],
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
}

VARIANTS = {
    "jina-bert-v2": Variant(
        "ALiBi both ways, GeGLU in one matrix",
        "BertModel",
        BASE | {"max_position_embeddings": 256, "intermediate_size": 32},
        published=JINA,
        extend=jina(of_code=False),
        checkpoint=jina_names,
        hf=True,
    ),
    "jina-bert-v2-code": Variant(
        "Q and K normed whole, a norm more, the gate behind what it gates",
        "BertModel",
        BASE | {"max_position_embeddings": 256, "intermediate_size": 32, "num_attention_heads": 4},
        published=JINA,
        extend=jina(of_code=True),
        checkpoint=jina_names,
        hf=True,
    ),
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
