"""All families, and which of them a template is of."""

from __future__ import annotations

from server.chat.tool_calls.command_r import CommandR, CommandRPlus
from server.chat.tool_calls.deepseek import DeepSeekR1, DeepSeekV31
from server.chat.tool_calls.family import Family
from server.chat.tool_calls.functionary import Functionary
from server.chat.tool_calls.generic import Generic
from server.chat.tool_calls.harmony import Harmony
from server.chat.tool_calls.hermes import Hermes
from server.chat.tool_calls.llama3 import Llama3
from server.chat.tool_calls.mistral import MistralList, MistralNamed
from server.chat.tool_calls.qwen_coder import QwenCoder, Seed

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
