"""GPT-2: LayerNorms, learned positions, fused QKV, GELU (tanh form), biases, usually a tied head."""

from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class GPT2(Decoder):
    name = "gpt2"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope=None, eps="layer", max_positions=reader.integer("context_length"))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="gelu", gate=None)
