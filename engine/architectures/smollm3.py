"""SmolLM3: as LLaMA, without RoPE in every fourth layer (NoPE, Yang 2025, arXiv 2501.18795)."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

UNROTATED_EACH = 4  # no key says so


class SmolLM3(Llama):
    name = "smollm3"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        layers = range(1, reader.integer("block_count") + 1)
        return reader.hparams(rope="interleaved", unrotated=tuple(i % UNROTATED_EACH == 0 for i in layers))
