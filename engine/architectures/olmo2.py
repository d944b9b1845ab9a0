"""OLMo 2: norms only behind the blocks; Q and K are normed over all heads at once (arXiv 2501.00656)."""

from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class OLMo2(Decoder):
    name = "olmo2"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        return HParamsReader(gguf, cls.name).hparams(rope="neox")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attention=Attention(binder, self.hp, i, qk_norm="row", norm=self.norm),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=FeedForward(binder, self.hp, i),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
        )
