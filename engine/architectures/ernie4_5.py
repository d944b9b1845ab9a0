"""ERNIE 4.5, the dense models: as LLaMA; adjacent pairs are rotated in the checkpoints too."""

from engine.architectures.llama import Llama


class Ernie45(Llama):
    name = "ernie4_5"
