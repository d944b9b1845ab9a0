"""Granite 4: as Granite 3, most layers with the mixer of Mamba 2 in place of attention, without rotary."""

from dataclasses import replace

from engine.architectures.granitemoe import GraniteMoE
from engine.gguf import GGUFFile
from engine.hparams import HParams, Routing
from engine.nn.binder import Binder
from engine.nn.decoder import Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import Mamba2


class GraniteHybrid(GraniteMoE):
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

    def attention(self, binder: Binder, i: int) -> Mixer:
        if self.hp.recurrent[i]:
            return Mamba2(binder, self.hp, i)
        return super().attention(binder, i)
