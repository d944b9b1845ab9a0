"""ChatGLM 2 and 3, GLM-4 of 2024: as LLaMA; RoPE on half of the head, gate and up in one matrix.

(arXiv 2406.12793.)
"""

from engine.architectures.llama import Llama
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward


class ChatGLM(Llama):
    name = "chatglm"

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return FeedForward(binder, self.hp, i, gate="fused")
