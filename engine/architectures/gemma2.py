"""Gemma 2: as Gemma, with norms after the blocks too, soft-caps, and a window in every other layer.

(arXiv 2408.00118.)
"""

import math
from typing import ClassVar

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader

WINDOW = 4096  # of files without the key
LAYERS_OF_27B = 46  # it scales scores by n_embd / n_head instead of the head's size, and no key says so


class Gemma2(Decoder):
    name = "gemma2"
    full_each: ClassVar[int] = 2  # the layers without a window

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_layer, n_embd = reader.integer("block_count"), reader.integer("embedding_length")
        n_head = reader.integer("attention.head_count")
        scale = 1.0 / math.sqrt(n_embd / n_head) if n_layer == LAYERS_OF_27B else 0.0
        return reader.hparams(
            rope="neox",
            embedding_scale=math.sqrt(n_embd),
            windows=reader.windows(n_layer, pattern=cls.full_each, default=WINDOW),
            attention_softcap=reader.number("attn_logit_softcapping", 0.0),
            logit_softcap=reader.number("final_logit_softcapping", 0.0),
            attention_scale=reader.number("attention.scale", scale),
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=self.attention(binder, i),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu"),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i)
