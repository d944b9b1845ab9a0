"""MPT: LayerNorms, fused QKV (perhaps clamped), ALiBi (arXiv 2108.12409) or learned positions, GELU."""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class MPT(Decoder):
    name = "mpt"
    norms = "layer"

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
