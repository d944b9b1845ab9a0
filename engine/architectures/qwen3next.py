"""Qwen3-Next: three layers with a gated delta net, then one of gated attention; experts (Qwen 2025)."""

from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder, Layer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts
from engine.nn.recurrent import GatedDeltaNet


class Qwen3Next(Decoder):
    name = "qwen3next"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
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

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=GatedDeltaNet(binder, hp, i)
            if hp.recurrent[i]
            else Attention(binder, hp, i, qk_norm="head", norm=self.norm, gated=True),
            ffn_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=self.feed_forward(binder, i),
        )

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, shared=True)
