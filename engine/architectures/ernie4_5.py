"""ERNIE 4.5, dense: as LLaMA; checkpoints use GPT-J-style RoPE too."""

from engine.architectures.llama import Llama


class Ernie45(Llama):
    name = "ernie4_5"
