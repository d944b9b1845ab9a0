"""Gemma 4 (text): as Gemma 3; layers without a window have larger heads, V is normed and may be K.

The last layers read the keys and values of earlier ones; in E2B and E4B, each layer reads the token again.
"""

import math

from engine.hparams import HParams, Rope
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import ExpertsBeside


class Gemma4(Decoder):
    name = "gemma4"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n, dim = reader.integer("block_count"), reader.integer("attention.key_length_swa")
        windows = reader.windows(n)
        n_dims = reader.integer("rope.dimension_count_swa", dim)
        return reader.hparams(
            rope="neox",
            rope_local=Rope(mode="neox", n_dims=n_dims, freq_base=reader.number("rope.freq_base_swa")),
            embedding_scale=math.sqrt(reader.integer("embedding_length")),
            windows=windows,
            head_dims=tuple(dim if w else reader.integer("attention.key_length") for w in windows),
            kv_sources=reader.kv_sources(windows, 0),
            n_per_layer=reader.integer("embedding_length_per_layer_input", 0),
            attention_scale=1.0,
            logit_softcap=reader.number("final_logit_softcapping", 0.0),
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        factors = None if hp.window(i) else self.factors
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, hp, i, qk_norm="head", norm=self.norm, norm_values=True, rope_factors=factors
            ),
            attn_post_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn_norm=None if hp.n_expert else self.block_norm(binder, i, "ffn_norm"),
            ffn=(ExpertsBeside if hp.n_expert else FeedForward)(binder, hp, i, activation="gelu"),
            ffn_post_norm=self.block_norm(binder, i, "post_ffw_norm"),
            again=self.again.layer(binder, hp, i) if self.again else None,
            output_scale=binder.optional(f"blk.{i}.layer_output_scale.weight", (1,), "mul", i),
        )
