"""StarCoder and SantaCoder (GPT-BigCode): as GPT-2, with one KV head (arXiv 2305.06161)."""

from engine.architectures.gpt2 import GPT2
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class StarCoder(GPT2):
    name = "starcoder"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        return reader.hparams(rope=None, eps="layer", max_positions=reader.integer("context_length"))
