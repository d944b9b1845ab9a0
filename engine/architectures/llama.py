"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each half, rotary, SwiGLU.

Q and K come permuted for rotation of adjacent pairs. Optional: biases, a tied head, rope scaling,
experts, a sliding window.
"""

from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class Llama(Decoder):
    name = "llama"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        return reader.hparams(rope="interleaved", windows=reader.windows(reader.integer("block_count")))

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=self.feed_forward(binder, i),
            residual_scale=hp.residual_scale,
        )

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return (MixtureOfExperts if self.hp.n_expert else FeedForward)(binder, self.hp, i)
