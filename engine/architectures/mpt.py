"""MPT: LayerNorms, fused (optionally clamped) QKV, ALiBi (arXiv 2108.12409) or learned positions, GELU."""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Decoder
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class MPT(Decoder):
    name = "mpt"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        positions = reader.gguf.tensors.get("position_embd.weight")
        return reader.hparams(
            rope=None,
            eps="layer",
            max_bias=reader.number("attention.max_alibi_bias", 0.0),
            clamp_qkv=reader.number("attention.clamp_kqv", 0.0),
            max_positions=positions.shape[1] if positions is not None else 0,
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Attention(binder, self.hp, i, qk_norm="row" if qk_norm else None, norm=self.norm)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="gelu_erf", gate=None)
