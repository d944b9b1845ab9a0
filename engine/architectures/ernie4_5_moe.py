"""ERNIE 4.5 MoE: as the dense models, with experts behind dense layers, chosen by biased softmax."""

from engine.architectures.llama import Llama
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class Ernie45MoE(Llama):
    name = "ernie4_5-moe"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        reader.only("interleave_moe_layer_step", 1)
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="interleaved", n_dense=n_dense, routing=reader.routing(renormalise=True))

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if i < self.hp.n_dense:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=self.hp.n_ff_shared > 0, gated=False)
