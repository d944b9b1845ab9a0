"""StableLM 2 and StableLM-3B: LayerNorms, partial rotary, SwiGLU (arXiv 2402.17834).

The 12B norms Q and K per head with weights of its own for each, and its residual is parallel on one norm.
"""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class StableLM(Decoder):
    name = "stablelm"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        # The key is there and says nothing: what counts is whether there is a second norm.
        parallel = "blk.0.ffn_norm.weight" not in gguf.tensors
        return keys.hparams(rope="neox", eps="layer", parallel=parallel)

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            parallel=hp.parallel,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, hp, i, qk_norm="head" if qk_norm else None, norm=self.norm, own_weights=True
            ),
            ffn_norm=None if hp.parallel else self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, hp, i),
        )


ARCHITECTURE = StableLM
