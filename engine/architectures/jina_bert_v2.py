"""Jina embeddings 2: as BERT, with bidirectional ALiBi for positions, and GeGLU (arXiv 2310.19923).

The code model also norms Q and K, has one more norm, and its gate comes after the values that it gates.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.encoder import Encoder
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.layers import Norm

MAX_BIAS = 8.0


class JinaBertV2(Encoder):
    name = "jina-bert-v2"
    activation = "gelu_erf"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("attention.max_alibi_bias", MAX_BIAS)
        return reader.encoder(rope=None, max_bias=MAX_BIAS)

    def attention(self, binder: Binder, i: int) -> Attention:
        if binder.has(f"blk.{i}.attn_q_norm.weight"):
            return Attention(binder, self.hp, i, qk_norm="row", norm=self.row_norm)
        return super().attention(binder, i)

    def row_norm(self, binder: Binder, name: str, shape: tuple[int, ...], layer: int) -> Norm:
        return binder.layer_norm(name, shape, self.hp.eps, layer)

    def feed_forward(self, binder: Binder, i: int) -> FeedForward:
        if binder.has(f"blk.{i}.ffn_gate.weight"):  # as converters wrote it until 2025
            return FeedForward(binder, self.hp, i, activation=self.activation)
        if binder.has(f"blk.{i}.attn_norm_2.weight"):
            return FeedForward(binder, self.hp, i, activation=self.activation, gate="fused_last")
        return FeedForward(binder, self.hp, i, activation=self.activation, gate="fused")
