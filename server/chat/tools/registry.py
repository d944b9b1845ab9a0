"""All families, and which of them a template is of."""

from __future__ import annotations

from server.chat.tools.command_r import CommandR, CommandRPlus
from server.chat.tools.deepseek import DeepSeekR1, DeepSeekV31
from server.chat.tools.family import Family
from server.chat.tools.functionary import Functionary
from server.chat.tools.generic import Generic
from server.chat.tools.harmony import Harmony
from server.chat.tools.hermes import Hermes
from server.chat.tools.llama3 import Llama3
from server.chat.tools.mistral import MistralList, MistralNamed
from server.chat.tools.qwen_coder import QwenCoder, Seed

# The first that detects its marks.
FAMILIES: tuple[Family, ...] = (
    Harmony(),
    MistralNamed(),
    MistralList(),
    CommandR(),
    CommandRPlus(),
    DeepSeekR1(),
    DeepSeekV31(),
    QwenCoder(),
    Seed(),
    Hermes(),
    Functionary(),
    Llama3(),
    Generic(),
)


def family_of(source: str) -> Family:
    """The family of a chat template; the generic one if it shows no other's marks."""
    return next(family for family in FAMILIES if family.detects(source))
