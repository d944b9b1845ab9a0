"""DBRX: as LLaMA, with LayerNorms without biases, clamped Q, K and V in one matrix, and experts."""

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class DBRX(Llama):
    name = "dbrx"
    norms = "layer"
    ffn_norm = "attn_output_norm"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", eps="layer", clamp_qkv=reader.number("attention.clamp_kqv"))
