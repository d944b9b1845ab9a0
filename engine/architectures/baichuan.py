"""Baichuan 1 and 2: as LLaMA; the 13B models use ALiBi instead of RoPE (arXiv 2309.10305)."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

LAYERS_OF_13B, MAX_BIAS = 40, 8.0  # no key says so


class Baichuan(Llama):
    name = "baichuan"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        if reader.integer("block_count") == LAYERS_OF_13B:
            return reader.hparams(rope=None, max_bias=MAX_BIAS)
        return reader.hparams(rope="interleaved")
