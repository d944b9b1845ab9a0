"""GLM-4.5, 4.6 and 4.7: as Qwen 2 with partial rotary and experts behind dense layers (arXiv 2508.06471).

Experts are chosen by biased sigmoids, beside a shared one. Layers for multi-token prediction are left out.
"""

from engine.architectures.qwen2 import Qwen2
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts


class GLM4MoE(Qwen2):
    name = "glm4moe"

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        reader = HParamsReader(gguf, cls.name)
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="neox", n_dense=n_dense, routing=reader.routing("sigmoid"))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=self.attention(binder, i),
            ffn_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=self.feed_forward(binder, i),
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        if binder.has(f"blk.{i}.attn_q_norm.weight"):  # the largest
            return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)
        return Attention(binder, self.hp, i)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if i < self.hp.n_dense:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=self.hp.n_ff_shared > 0, gated=False)
