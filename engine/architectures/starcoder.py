"""StarCoder and SantaCoder (GPT-BigCode): as GPT-2, with one KV head (arXiv 2305.06161)."""

from engine.architectures.gpt2 import GPT2
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class StarCoder(GPT2):
    name = "starcoder"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope=None, eps="layer", max_positions=reader.integer("context_length"))
