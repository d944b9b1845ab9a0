"""Jamba: Mamba in most layers, attention without positions in others, experts in some (arXiv 2403.19887)."""

from engine.hparams import HParams, Routing
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder, Mixer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts
from engine.nn.recurrent import Mamba


class Jamba(Decoder):
    name = "jamba"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        kv_heads = reader.per_layer("attention.head_count_kv", reader.n_layer())
        return reader.hparams(
            rope=None,
            recurrence=reader.ssm_of_channels(),
            recurrent=tuple(not heads for heads in kv_heads),
            routing=Routing(renormalise=False),
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        return (Mamba if self.hp.recurrent[i] else Attention)(binder, self.hp, i)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        has_experts = binder.has(f"blk.{i}.ffn_gate_inp.weight")
        return (MixtureOfExperts if has_experts else FeedForward)(binder, self.hp, i)
