"""MiniCPM 1, 2 and 4: as LLaMA, with multipliers and optional LongRoPE (arXiv 2404.06395)."""

import math

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

EMBEDDING_SCALE, DEPTH_SCALE, BASE_WIDTH = 12.0, 1.4, 256  # of files without the keys


class MiniCPM(Llama):
    name = "minicpm"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer, n_embd = reader.integer("block_count"), reader.integer("embedding_length")
        return reader.hparams(
            rope="interleaved",
            embedding_scale=reader.number("embedding_scale", EMBEDDING_SCALE),
            residual_scale=reader.number("residual_scale", DEPTH_SCALE / math.sqrt(n_layer)),
            logit_scale=1.0 / reader.number("logit_scale", n_embd / BASE_WIDTH),
            original_context_length=reader.long_rope(),
        )
