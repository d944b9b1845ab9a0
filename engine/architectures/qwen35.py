"""Qwen 3.5 (text): as Qwen3-Next with a plain feed-forward network."""

from engine.architectures.qwen3next import Qwen3Next
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward


class Qwen35(Qwen3Next):
    # The multimodal rotary embedding has the same position in all its parts for text: it is the plain one.
    name = "qwen35"

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i)
