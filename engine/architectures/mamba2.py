"""Mamba 2: one block per layer, without attention (Dao 2024, arXiv 2405.21060)."""

from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import Mamba2


class Mamba2Model(Decoder):
    name = "mamba2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.n_layer()
        return reader.hparams(
            rope=None, n_head_kv=(0,) * n_layer, recurrence=reader.ssm(), recurrent=(True,) * n_layer
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(attn_norm=self.block_norm(binder, i, "attn_norm"), attention=Mamba2(binder, self.hp, i))
