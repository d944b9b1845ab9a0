"""MPT: LayerNorms, fused QKV (perhaps clamped), ALiBi (arXiv 2108.12409) or learned positions, GELU."""

from __future__ import annotations

from typing import Any

from engine.convert.huggingface.names import below
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class MPT(Decoder):
    name = "mpt"
    norms = "layer"
    huggingface = ("MPTForCausalLM", "MptForCausalLM")
    tied_by_default = True
    settings = {  # noqa: RUF012
        "norm_type": ("low_precision_layernorm", "layernorm"),
        "logit_scale": (1.0,),
        "embedding_fraction": (1.0,),
        "ffn_config.ffn_type": ("mptmlp",),
        "attn_config.attn_type": ("multihead_attention", "multiquery_attention", "grouped_query_attention"),
        "attn_config.prefix_lm": (False,),
        "attn_config.qk_gn": (False,),
        "attn_config.rope": (False,),
        "attn_config.sliding_window_size": (-1,),
    }
    names = {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.norm_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.blocks",
        {
            "norm_1": "attn_norm",
            "attn.Wqkv": "attn_qkv",
            "attn.q_ln": "attn_q_norm",
            "attn.k_ln": "attn_k_norm",
            "attn.out_proj": "attn_output",
            "norm_2": "ffn_norm",
            "ffn.up_proj": "ffn_up",
            "ffn.down_proj": "ffn_down",
        },
    )

    legacy = Legacy(
        fields=(
            *("embedding_length", "context_length", "attention.head_count", "block_count", "n_vocab"),
            *("attention.max_alibi_bias", "attention.clamp_kqv"),
        ),
        defaults={EPSILON: 1e-5},
        pre="mpt",
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        attention = config.get("attn_config") or {}
        found = keys.common(config) | {"attention.layer_norm_epsilon": 1e-5}
        one = attention.get("attn_type") == "multiquery_attention"
        if kv := 1 if one else attention.get("kv_n_heads"):
            found["attention.head_count_kv"] = int(kv)
        if scale := attention.get("softmax_scale"):
            found["attention.scale"] = float(scale)
        if clip := attention.get("clip_qkv"):
            found["attention.clamp_kqv"] = float(clip)
        alibi = attention.get("alibi", True)
        found["attention.max_alibi_bias"] = float(attention.get("alibi_bias_max", 8)) if alibi else 0.0
        return found

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        positions = gguf.tensors.get("position_embd.weight")
        return keys.hparams(
            rope=None,
            eps="layer",
            max_bias=keys.number("attention.max_alibi_bias", 0.0),
            clamp_qkv=keys.number("attention.clamp_kqv", 0.0),
            max_positions=positions.shape[1] if positions is not None else 0,
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, hp, i, qk_norm="row" if qk_norm else None, norm=self.norm),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, hp, i, activation="gelu_erf", gate=None),
        )


ARCHITECTURE = MPT
