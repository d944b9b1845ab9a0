"""Granite 4: as Granite 3, most layers with the mixer of Mamba 2 in place of attention, without rotary."""

from dataclasses import replace

from engine.architectures.granite import Granite
from engine.gguf import GGUFFile
from engine.hparams import HParams, Routing
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts
from engine.nn.recurrent import Mamba2


class GraniteHybrid(Granite):
    name = "granitehybrid"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        hp = super().hparams(gguf)
        recurrent = tuple(not heads for heads in hp.n_head_kv)
        return replace(
            hp,
            recurrence=HParamsReader(gguf, cls.name).ssm(),
            recurrent=recurrent,
            routing=Routing(weights="selected"),
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Mamba2(binder, hp, i) if hp.recurrent[i] else Attention(binder, hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=self.feed_forward(binder, i),
            residual_scale=hp.residual_scale,
        )

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if not self.hp.n_expert:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=self.hp.n_ff_shared > 0, gated=False)
