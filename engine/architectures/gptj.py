"""GPT-J: parallel attention and feed-forward on one norm, partial GPT-J-style RoPE, GELU (tanh form).

No public converter writes it to GGUF: docs/architectures.md defines the layout.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class GPTJ(Decoder):
    name = "gptj"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="interleaved", eps="layer")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn=FeedForward(binder, self.hp, i, activation="gelu", gate=None),
        )
