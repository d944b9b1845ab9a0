"""Falcon-H1: attention and the Mamba 2 mixer in parallel in each layer (arXiv 2507.22448).

The model's multipliers are already folded into the file's weights.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.layers import RMSNorm
from engine.nn.recurrent import Mamba2, SideBySide


class FalconH1(Decoder):
    name = "falcon-h1"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", recurrence=reader.ssm(), recurrent=(True,) * reader.n_layer())

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        # A file of llama.cpp's converter has this name without an end.
        norm = binder.tensor(f"blk.{i}.ffn_norm", (hp.n_embd,), "mul", i)
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=SideBySide(Attention(binder, hp, i), Mamba2(binder, hp, i)),
            ffn_norm=RMSNorm(norm, hp.eps),
            ffn=FeedForward(binder, hp, i),
        )
