"""Qwen 1.5, 2 and 2.5: as LLaMA, with NeoX-style RoPE and biases for Q, K, V (arXiv 2407.10671)."""

from engine.hparams import HParams
from engine.nn.decoder import Decoder
from engine.nn.hparams_reader import HParamsReader


class Qwen2(Decoder):
    name = "qwen2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox")
