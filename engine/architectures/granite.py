"""Granite 3, and Granite 4 without Mamba layers: as LLaMA, with four multipliers (arXiv 2405.04324)."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Granite(Llama):
    name = "granite"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        # Of other models the key says that scaling was trained; here, that there is a rotary embedding.
        rotated = reader.flag("rope.scaling.finetuned", True)
        return reader.hparams(
            rope="interleaved" if rotated else None,
            embedding_scale=reader.number("embedding_scale", 1.0),
            residual_scale=reader.number("residual_scale", 1.0),
            logit_scale=1.0 / (reader.number("logit_scale", 0.0) or 1.0),
        )
