"""ERNIE 4.5 MoE: as the dense models, with experts after dense layers, chosen by a biased softmax."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Ernie45MoE(Llama):
    name = "ernie4_5-moe"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("interleave_moe_layer_step", 1)
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="interleaved", n_dense=n_dense, routing=reader.routing(renormalise=True))
