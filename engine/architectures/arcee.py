"""Arcee (AFM): as LLaMA, with an ungated feed-forward of squared ReLU (So 2021, arXiv 2109.08668)."""

from engine.architectures.llama import Llama
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward


class Arcee(Llama):
    name = "arcee"

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, activation="relu_squared", gate=None)
