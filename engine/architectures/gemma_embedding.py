"""EmbeddingGemma: as Gemma 3, but with bidirectional attention (Vera 2025, arXiv 2509.20354).

If a file has the two matrices after the model, they are applied before pooling, which gives the same result.
"""

from dataclasses import replace

from engine.architectures.gemma3 import Gemma3
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class GemmaEmbedding(Gemma3):
    name = "gemma-embedding"
    causal = False

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        dense = reader.gguf.tensors.get("dense_2.weight")
        return replace(super().read(reader), n_between=0 if dense is None else dense.shape[1])
