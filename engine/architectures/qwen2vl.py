"""Qwen 2 VL and 2.5 VL, the text part: as Qwen 2. In text, all sections of a position are equal (arXiv
2409.12191).
"""

from engine.architectures.qwen2 import Qwen2


class Qwen2VL(Qwen2):
    name = "qwen2vl"
