"""BLOOM: as GPT-2, but ALiBi for positions and a norm on the embedding (Le Scao 2022, arXiv 2211.05100)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.architectures.gpt2 import GPT2
from engine.convert.huggingface.names import below, by_parts
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.hparams import HParams, Keys

MAX_BIAS = 8.0  # no key says so


class Bloom(GPT2):
    name = "bloom"
    norms_embedding = True
    huggingface = ("BloomForCausalLM", "BloomModel")
    tied_by_default = True
    names = {
        "transformer.word_embeddings": "token_embd",
        "transformer.word_embeddings_layernorm": "token_embd_norm",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "input_layernorm": "attn_norm",
            "self_attention.query_key_value": "attn_qkv",
            "self_attention.dense": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
    )
    names |= {name.removeprefix("transformer."): target for name, target in names.items()}

    settings = {"apply_residual_connection_post_layernorm": (False,)}  # noqa: RUF012

    legacy = Legacy(
        fields=("n_vocab", "embedding_length", "n_mult", "attention.head_count", "block_count"),
        defaults={"context_length": 2048, EPSILON: 1e-5},
        names={
            "tok_embeddings": "token_embd",
            "norm": "token_embd_norm",
            "output_norm": "output_norm",
            "output": "output",
        }
        | below(
            "layers",
            {
                "attention_norm": "attn_norm",
                "attention.query_key_value": "attn_qkv",
                "attention.wo": "attn_output",
                "ffn_norm": "ffn_norm",
                "feed_forward.w1": "ffn_up",
                "feed_forward.w2": "ffn_down",
            },
        ),
        pre="bloom",
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common({"seq_length": 2048} | config)
        return found | {"attention.head_count_kv": found["attention.head_count"]}

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        return ((name, by_parts(x, config["n_head"]) if ".attn_qkv." in name else x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope=None, eps="layer", max_bias=MAX_BIAS)


ARCHITECTURE = Bloom
