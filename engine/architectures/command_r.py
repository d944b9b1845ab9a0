"""Command-R: LayerNorms without bias, parallel blocks on one norm, GPT-J-style RoPE, SwiGLU, scaled logits.

Command-R+ also norms Q and K per head, with separate weights for each head.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class CommandR(Decoder):
    name = "command-r"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="interleaved", eps="layer", logit_scale=reader.number("logit_scale", 1.0))

    def layer(self, binder: Binder, i: int) -> Layer:
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, self.hp, i, qk_norm="head" if qk_norm else None, norm=self.norm, norm_per_head=True
            ),
            ffn=FeedForward(binder, self.hp, i),
        )
