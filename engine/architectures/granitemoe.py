"""Granite 3 MoE: as Granite, with experts, and a shared one where the model has it."""

from engine.architectures.granite import Granite
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.moe import MixtureOfExperts


class GraniteMoE(Granite):
    name = "granitemoe"

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if not self.hp.n_expert:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=self.hp.n_ff_shared > 0, gated=False)
