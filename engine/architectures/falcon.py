"""Falcon: parallel attention and feed-forward, RoPE, GELU, one or a few KV heads (arXiv 2311.16867).

The 7B style has one norm for both. In the 40B and 180B style `attn_norm` feeds the feed-forward and
`attn_norm_2` the attention.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class Falcon(Decoder):
    name = "falcon"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("tensor_data_layout", "jploski")
        return reader.hparams(rope="neox", eps="layer")

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
