"""OLMo 2 and 3: norms only after the blocks; Q and K are normed over all heads at once (arXiv 2501.00656).

In OLMo 3 (arXiv 2512.13961) three of four layers have windows, and only the others scale their RoPE.
"""

from engine.hparams import HParams, Rope
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader

FULL_EACH = 4  # layers of OLMo 3 without a window, in files without the pattern


class OLMo2(Decoder):
    name = "olmo2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        if not reader.integer("attention.sliding_window", 0):
            return reader.hparams(rope="neox")
        base = reader.number("rope.freq_base_swa", reader.number("rope.freq_base", 10000.0))
        return reader.hparams(
            rope="neox",
            rope_local=Rope(mode="neox", n_dims=reader.head_dim(), freq_base=base),
            windows=reader.windows(reader.integer("block_count"), pattern=FULL_EACH),
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attention=Attention(binder, self.hp, i, qk_norm="row", norm=self.norm),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=FeedForward(binder, self.hp, i),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
        )
