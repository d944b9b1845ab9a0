"""Qwen3-Next: three layers with a gated delta net, then one of gated attention; experts (Qwen 2025)."""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder, Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts
from engine.nn.recurrent import GatedDeltaNet


class Qwen3Next(Decoder):
    name = "qwen3next"
    ffn_norm = "post_attention_norm"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.n_layer()
        recurrent = reader.linear_attention(n_layer, 4)
        heads = reader.per_layer("attention.head_count", n_layer)
        kv_heads = reader.per_layer("attention.head_count_kv", n_layer, heads)
        return reader.hparams(
            rope="neox",
            n_head_kv=tuple(0 if r else n for r, n in zip(recurrent, kv_heads, strict=True)),
            n_ff=reader.per_layer("feed_forward_length", n_layer, (0,) * n_layer),
            recurrence=reader.ssm(),
            recurrent=recurrent,
            routing=reader.routing(renormalise=True),
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        if self.hp.recurrent[i]:
            return GatedDeltaNet(binder, self.hp, i)
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm, gated=True)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, shared=True)
