"""LFM2: gated short convolutions, and attention in some layers (Liquid AI 2025, arXiv 2511.23404)."""

from engine.hparams import HParams, Recurrence
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.recurrent import ShortConvolution


class LFM2(Decoder):
    name = "lfm2"
    output_norm_name = "token_embd_norm"  # llama.cpp's name

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.n_layer()
        kv_heads = reader.per_layer("attention.head_count_kv", n_layer)
        n_embd, kernel = reader.integer("embedding_length"), reader.kernel("shortconv.l_cache")
        return reader.hparams(
            rope="neox",
            windows=reader.windows(n_layer),
            recurrence=Recurrence(kernel=kernel, channels=n_embd),
            recurrent=tuple(not heads for heads in kv_heads),
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        if self.hp.recurrent[i]:
            return ShortConvolution(binder, self.hp, i)
        return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)
