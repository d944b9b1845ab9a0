"""GLM-4-0414: norms before and after the blocks, partial RoPE, gate and up in one matrix.

RoPE is GPT-J-style; files with sections of positions (GLM-4.1V) have their rows ordered for NeoX-style.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class GLM4(Decoder):
    name = "glm4"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        # In text all sections have the same position.
        return reader.hparams(rope="neox" if reader.has("rope.dimension_sections") else "interleaved")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, gate="fused"),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
        )
