"""StarCoder 2: LayerNorms, biases, NeoX-style RoPE, GELU (tanh form), a window (arXiv 2402.19173)."""

from engine.architectures.gpt2 import GPT2
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

WINDOW = 4096  # of all published models; llama.cpp's converter leaves the key out


class StarCoder2(GPT2):
    name = "starcoder2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        windows = reader.windows(reader.integer("block_count"), default=WINDOW)
        return reader.hparams(rope="neox", eps="layer", windows=windows)
