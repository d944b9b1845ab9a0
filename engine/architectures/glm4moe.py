"""GLM-4.5, 4.6 and 4.7: as Qwen 2 with partial RoPE, and experts after dense layers (arXiv 2508.06471).

Experts are chosen by biased sigmoids, beside a shared one. Multi-token prediction layers are left out.
"""

from engine.architectures.qwen2 import Qwen2
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Mixer
from engine.nn.hparams_reader import HParamsReader


class GLM4MoE(Qwen2):
    name = "glm4moe"
    ffn_norm = "post_attention_norm"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n_dense = reader.integer("leading_dense_block_count", 0)
        return reader.hparams(rope="neox", n_dense=n_dense, routing=reader.routing("sigmoid"))

    def attention(self, binder: Binder, i: int) -> Mixer:
        if binder.has(f"blk.{i}.attn_q_norm.weight"):  # the largest
            return Attention(binder, self.hp, i, qk_norm="head", norm=self.norm)
        return super().attention(binder, i)
