"""Granite 4: as Granite 3, with Mamba 2 mixers instead of attention in most layers, without RoPE.

Bamba, whose files have the same architecture, rotates half of each head, x[i] with x[i + d / 4]. But the rows
of Q and K are in the order for x[i] with x[i + d / 2], like those of LLaMA.
"""

from dataclasses import replace

from engine.architectures.granitemoe import GraniteMoE
from engine.hparams import HParams, Routing
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import Mamba2


class GraniteHybrid(GraniteMoE):
    name = "granitehybrid"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        hp, rope = super().read(reader), None
        if hp.rope is not None:
            rope = reader.rope("neox", reader.integer("rope.dimension_count", hp.head_dim_k // 2))
        recurrent = tuple(not heads for heads in hp.n_head_kv)
        return replace(
            hp,
            rope=rope,
            recurrence=reader.ssm(),
            recurrent=recurrent,
            routing=Routing(weights="selected"),
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        if self.hp.recurrent[i]:
            return Mamba2(binder, self.hp, i)
        return Attention(binder, self.hp, i, in_pairs=True)
