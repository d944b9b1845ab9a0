"""Falcon: attention and feed-forward side by side, rotary, GELU, one or a few KV heads (arXiv 2311.16867).

The 7B style has one norm for both. In the 40B and 180B style `attn_norm` feeds the feed-forward and
`attn_norm_2` the attention.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.convert.huggingface.names import below
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


def query_heads(config: dict[str, Any]) -> int:
    return int(config.get("num_attention_heads") or config["n_head"])


def kv_heads(config: dict[str, Any]) -> int:
    """Old models have one unless they say otherwise; the new ones state a number."""
    if config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or config.get("n_head_kv") or query_heads(config))
    return 1 if config.get("multi_query", True) else query_heads(config)


class Falcon(Decoder):
    name = "falcon"
    norms = "layer"
    huggingface = ("FalconForCausalLM", "RWForCausalLM")
    tied_by_default = True
    settings = {  # noqa: RUF012
        "activation": ("gelu",),
        "alibi": (False,),
        "bias": (False,),
        "apply_residual_connection_post_layernorm": (False,),
    }
    names = {
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

    legacy = Legacy(
        fields=(
            *("n_vocab", "embedding_length", "attention.head_count", "attention.head_count_kv"),
            "block_count",
        ),
        defaults={"context_length": 2048, EPSILON: 1e-5, "tensor_data_layout": "jploski"},
        pre="falcon",
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        if not config.get("new_decoder_architecture"):
            keys.only(config, "parallel_attn", True)
        found = {"context_length": 2048} | keys.common({"max_position_embeddings": 2048} | config)
        found["attention.head_count_kv"] = kv_heads(config)
        found["tensor_data_layout"] = "jploski"
        return found

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        if ".attn_qkv." not in name:
            return ((name, x),)
        import numpy as np

        # Groups of query heads, each with its one key and one value head behind it.
        n_head, n_kv = query_heads(config), kv_heads(config)
        groups = x.reshape(n_kv, n_head // n_kv + 2, -1, *x.shape[1:])
        parts = [groups[:, :-2], groups[:, -2:-1], groups[:, -1:]]
        return ((name, np.concatenate([p.reshape(-1, *x.shape[1:]) for p in parts])),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("tensor_data_layout", "jploski")
        return keys.hparams(rope="neox", eps="layer")

    def layer(self, binder: Binder, i: int) -> Layer:
        attn_norm, ffn_norm = self.block_norm(binder, i, "attn_norm"), None
        if binder.has(f"blk.{i}.attn_norm_2.weight"):
            attn_norm, ffn_norm = self.block_norm(binder, i, "attn_norm_2"), attn_norm
        return Layer(
            parallel=True,
            attn_norm=attn_norm,
            attention=Attention(binder, self.hp, i),
            ffn_norm=ffn_norm,
            ffn=FeedForward(binder, self.hp, i, activation="gelu_erf", gate=None),
        )


ARCHITECTURE = Falcon
