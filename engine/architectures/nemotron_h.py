"""Nemotron-H: each layer is one block: Mamba 2, attention without positions, or a feed-forward of squared
ReLU (arXiv 2504.03624).
"""

from engine.hparams import HParams, Routing
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer, Mixer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import Mamba2, Stateless


class NemotronH(Decoder):
    name = "nemotron_h"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.n_layer()
        n_ff = reader.per_layer("feed_forward_length", n_layer)
        kv_heads = reader.per_layer("attention.head_count_kv", n_layer)
        return reader.hparams(
            rope=None,
            eps="rms" if reader.has("attention.layer_norm_rms_epsilon") else "layer",
            n_ff=n_ff,
            recurrence=reader.ssm(),
            recurrent=tuple(not heads and not n for heads, n in zip(kv_heads, n_ff, strict=True)),
            **cls.experts(reader),
        )

    @classmethod
    def experts(cls, reader: HParamsReader) -> dict[str, int | Routing]:
        """The fields of `HParams` that state what experts read and how they are chosen."""
        return {}

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(attn_norm=self.block_norm(binder, i, "attn_norm"), attention=self.mixer(binder, i))

    def mixer(self, binder: Binder, i: int) -> Mixer:
        hp = self.hp
        if hp.recurrent[i]:
            return Mamba2(binder, hp, i)
        if hp.attends(i):
            return Attention(binder, hp, i)
        return Stateless(FeedForward(binder, hp, i, activation="relu_squared", gate=None), i)
