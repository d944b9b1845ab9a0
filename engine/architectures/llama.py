"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each block, RoPE, SwiGLU.

Q and K are permuted for GPT-J-style (interleaved) RoPE. Optional: biases, a tied head, rope scaling, experts,
a sliding window.
"""

from engine.hparams import HParams
from engine.nn.decoder import Decoder
from engine.nn.hparams_reader import HParamsReader


class Llama(Decoder):
    name = "llama"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="interleaved", windows=reader.windows(reader.integer("block_count")))
