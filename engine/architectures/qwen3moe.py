"""Qwen 3 MoE: as Qwen 2 MoE, with renormalised weights, no shared expert, and Qwen 3's norms of Q and K."""

from engine.architectures.qwen2moe import Qwen2MoE
from engine.architectures.qwen3 import Qwen3
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.moe import MixtureOfExperts


class Qwen3MoE(Qwen3, Qwen2MoE):
    name = "qwen3moe"
    renormalised = True

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i)
