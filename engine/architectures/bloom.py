"""BLOOM: as GPT-2, but ALiBi for positions and a norm on the embedding (Le Scao 2022, arXiv 2211.05100)."""

from engine.architectures.gpt2 import GPT2
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

MAX_BIAS = 8.0  # no key says so


class Bloom(GPT2):
    name = "bloom"
    norms_embedding = True

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope=None, eps="layer", max_bias=MAX_BIAS)
