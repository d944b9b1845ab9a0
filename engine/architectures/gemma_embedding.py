"""EmbeddingGemma: as Gemma 3, but rows see each other both ways (Vera 2025, arXiv 2509.20354).

Two matrices behind it, where a file has them, are applied before rows are pooled, which is the same.
"""

from dataclasses import replace

from engine.architectures.gemma3 import Gemma3
from engine.ggml.tensor import Tensor
from engine.gguf import GGUFFile
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.binder import Binder


class GemmaEmbedding(Gemma3):
    name = "gemma-embedding"
    causal = False

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        dense = gguf.tensors.get("dense_2.weight")
        return replace(super().hparams(gguf), n_between=0 if dense is None else dense.shape[1])

    def bind(self, binder: Binder) -> None:
        super().bind(binder)
        hp, self.behind = self.hp, []
        if hp.n_between:
            self.behind.append(binder.linear("dense_2", hp.n_embd, hp.n_between, hp.n_layer))
            self.behind.append(binder.linear("dense_3", hp.n_between, hp.n_embd, hp.n_layer))

    def build(self, forward: ForwardContext) -> Tensor | None:
        x = super().build(forward)
        if x is None:
            return None
        for matrix in self.behind:
            x = matrix(forward, x)
        return x
