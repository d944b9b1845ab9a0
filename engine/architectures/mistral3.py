"""Mistral Small 3.1 and Ministral 3: as LLaMA; Ministral's scores grow by position (arXiv 2601.08584)."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Mistral3(Llama):
    name = "mistral3"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("rope.scaling.yarn_log_multiplier", 0.0, 1.0)  # 1: YaRN has no factor of its own
        n_dims = reader.integer("rope.dimension_count", reader.head_dim())
        rope = reader.rope("interleaved", n_dims, scales_scores=True)
        return reader.hparams(rope=rope, **reader.temperature(rope))
