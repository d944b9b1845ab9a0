"""Qwen 3 VL MoE, the text part: as Qwen 3 MoE. In text, all sections of a position are equal."""

from engine.architectures.qwen3moe import Qwen3MoE


class Qwen3VLMoE(Qwen3MoE):
    name = "qwen3vlmoe"
