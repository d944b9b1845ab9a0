"""DeepSeekMoE 16B: as LLaMA, with experts after a dense layer, not renormalised, and shared experts."""

from engine.architectures.ernie4_5_moe import Ernie45MoE
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class DeepSeek(Ernie45MoE):
    name = "deepseek"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="interleaved", n_dense=n_dense, routing=reader.routing())
