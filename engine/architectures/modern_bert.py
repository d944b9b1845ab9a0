"""ModernBERT: an encoder with norms before its blocks, RoPE, GeGLU, windows (arXiv 2412.13663)."""

from engine.hparams import HParams, Rope
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader

FULL_EACH = 3  # layers without a window, from the first on, in files without the pattern


class ModernBert(Decoder):
    name = "modern-bert"
    norms = "layer"
    norms_embedding = True

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        reader.only("attention.causal", False)
        reader.only("hidden_activation", "gelu")
        n_layer = reader.integer("block_count")
        base = reader.number("rope.freq_base_swa", 10000.0)
        local = Rope(mode="neox", n_dims=reader.head_dim(), freq_base=base)
        return reader.hparams(
            rope="neox",
            rope_local=local,
            eps="layer",
            causal=False,
            pooling="mean",
            windows=reader.windows(n_layer, pattern=FULL_EACH, full_first=True),
        )

    def layer(self, binder: Binder, i: int) -> Layer:
        first = not binder.has(f"blk.{i}.attn_norm.weight")  # the norm of the embedding is its own
        return Layer(
            attn_norm=None if first else self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu_erf", gate="fused"),
        )
