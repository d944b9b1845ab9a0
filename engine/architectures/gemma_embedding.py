"""EmbeddingGemma: as Gemma 3, but rows see each other both ways (Vera 2025, arXiv 2509.20354).

Two matrices behind it, where a file has them, are applied before rows are pooled, which is the same.
"""

from dataclasses import replace

from engine.architectures.gemma3 import Gemma3
from engine.gguf import GGUFFile
from engine.hparams import HParams


class GemmaEmbedding(Gemma3):
    name = "gemma-embedding"
    causal = False

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        dense = gguf.tensors.get("dense_2.weight")
        return replace(super().hparams(gguf), n_between=0 if dense is None else dense.shape[1])
