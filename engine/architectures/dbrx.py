"""DBRX: as LLaMA with layer norms without biases, clamped Q, K and V in one matrix, and experts."""

from engine.architectures.llama import Llama
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Layer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class DBRX(Llama):
    name = "dbrx"
    norms = "layer"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        return reader.hparams(rope="neox", eps="layer", clamp_qkv=reader.number("attention.clamp_kqv"))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "attn_output_norm"),
            ffn=MixtureOfExperts(binder, self.hp, i),
        )
