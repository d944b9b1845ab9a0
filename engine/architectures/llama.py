"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each block, RoPE, SwiGLU.

Q and K are permuted for GPT-J-style (interleaved) RoPE. Optional: biases, a tied head, rope scaling, experts,
a sliding window.
"""

from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.decoder import Decoder
from engine.nn.hparams_reader import HParamsReader


class Llama(Decoder):
    name = "llama"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        return reader.hparams(rope="interleaved", windows=reader.windows(reader.integer("block_count")))
