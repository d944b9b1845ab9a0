"""Qwen 3.5 MoE (text): as Qwen 3.5 with the experts of Qwen3-Next."""

from engine.architectures.qwen3next import Qwen3Next


class Qwen35MoE(Qwen3Next):
    name = "qwen35moe"
