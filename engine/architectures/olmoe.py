"""OLMoE: as Qwen 2 MoE without a shared expert; Q and K are normed over all heads (arXiv 2409.02060)."""

from engine.architectures.qwen2moe import Qwen2MoE
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.moe import MixtureOfExperts


class OLMoE(Qwen2MoE):
    name = "olmoe"

    def attention(self, binder: Binder, i: int) -> Attention:
        return Attention(binder, self.hp, i, qk_norm="row", norm=self.norm)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i)
