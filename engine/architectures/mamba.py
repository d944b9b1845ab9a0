"""Mamba and Falcon Mamba: one block per layer, without attention (Gu 2023, arXiv 2312.00752)."""

from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import Mamba


class MambaModel(Decoder):
    name = "mamba"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.n_layer()
        return reader.hparams(
            rope=None,
            n_head_kv=(0,) * n_layer,
            recurrence=reader.ssm_of_channels(),
            recurrent=(True,) * n_layer,
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(attn_norm=self.block_norm(binder, i, "attn_norm"), attention=Mamba(binder, self.hp, i))
