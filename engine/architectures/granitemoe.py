"""Granite 3 MoE: as Granite, with experts, and a shared one if the model has it."""

from engine.architectures.granite import Granite


class GraniteMoE(Granite):
    name = "granitemoe"
