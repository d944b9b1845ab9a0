"""BERT: learned positions, GELU (exact form), biases everywhere (Devlin 2018, arXiv 1810.04805)."""

from engine.hparams import HParams
from engine.nn.encoder import Encoder
from engine.nn.hparams_reader import HParamsReader


class Bert(Encoder):
    name = "bert"
    activation = "gelu_erf"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.encoder(rope=None, max_positions=reader.integer("context_length"))
