"""GPT-OSS: attention sinks, a window in every other layer, experts with biases and a clamped SwiGLU.

The router's softmax is over the selected experts only (arXiv 2508.10925).
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class GPTOSS(Decoder):
    name = "gpt-oss"
    ffn_norm = "post_attention_norm"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.integer("block_count")
        rope = reader.rope("neox", reader.integer("rope.dimension_count", reader.head_dim()))
        if rope.ext_factor:
            rope = rope.unrounded_yarn()
        windows = reader.windows(n_layer, pattern=2)
        return reader.hparams(rope=rope, windows=windows, routing=reader.routing("selected"))

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, sinks=True)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, activation="swiglu_oai")
