"""EXAONE 4: norms only after the blocks, Q and K normed per head (arXiv 2507.11407).

In the 32B, three of four layers have windows, and only these have RoPE.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader

FULL_EACH = 4  # layers without a window, in files without the pattern
LAYERS_OF_32B, WINDOW = 64, 4096  # of its files without the key


class EXAONE4(Decoder):
    name = "exaone4"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer = reader.integer("block_count")
        windows = reader.windows(
            n_layer, pattern=FULL_EACH, default=WINDOW if n_layer == LAYERS_OF_32B else 0
        )
        unrotated = tuple(any(windows) and window == 0 for window in windows)
        return reader.hparams(rope="neox", windows=windows, unrotated=unrotated)

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attention=Attention(
                binder, self.hp, i, qk_norm="head", norm=self.norm, rope_factors=self.factors
            ),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=FeedForward(binder, self.hp, i),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
        )
