"""Qwen 3 VL, the text part: as Qwen 3. In text, all sections of a position are equal (arXiv 2511.21631)."""

from engine.architectures.qwen3 import Qwen3


class Qwen3VL(Qwen3):
    name = "qwen3vl"
