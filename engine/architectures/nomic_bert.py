"""Nomic BERT: as BERT, with NeoX-style RoPE, a gated SiLU, no biases (Nussbaum 2024, arXiv 2402.01613)."""

from engine.hparams import HParams
from engine.nn.encoder import Encoder
from engine.nn.hparams_reader import HParamsReader


class NomicBert(Encoder):
    name = "nomic-bert"
    activation = "silu"
    gate = "split"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.encoder(rope="neox")
