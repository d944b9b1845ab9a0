"""DeepSeekMoE 16B: as LLaMA, with experts after a dense layer, not renormalised, and shared experts."""

from engine.architectures.ernie4_5_moe import Ernie45MoE
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class DeepSeek(Ernie45MoE):
    name = "deepseek"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="interleaved", n_dense=n_dense, routing=reader.routing())
