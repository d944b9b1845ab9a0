"""All formats of tool calls, and which of them a template uses."""

from __future__ import annotations

from server.chat.tool_calls.command_r import CommandRFormat, CommandRPlusFormat
from server.chat.tool_calls.deepseek import DeepSeekR1Format, DeepSeekV31Format
from server.chat.tool_calls.functionary import FunctionaryFormat
from server.chat.tool_calls.generic import GenericFormat
from server.chat.tool_calls.harmony import HarmonyFormat
from server.chat.tool_calls.hermes import HermesFormat
from server.chat.tool_calls.llama3 import Llama3Format
from server.chat.tool_calls.mistral import MistralListFormat, MistralNamedFormat
from server.chat.tool_calls.qwen_coder import QwenCoderFormat, SeedFormat
from server.chat.tool_calls.tool_call_format import ToolCallFormat

# The first that detects its markers applies.
TOOL_CALL_FORMATS: tuple[ToolCallFormat, ...] = (
    HarmonyFormat(),
    MistralNamedFormat(),
    MistralListFormat(),
    CommandRFormat(),
    CommandRPlusFormat(),
    DeepSeekR1Format(),
    DeepSeekV31Format(),
    QwenCoderFormat(),
    SeedFormat(),
    HermesFormat(),
    FunctionaryFormat(),
    Llama3Format(),
    GenericFormat(),
)


def detect_tool_call_format(source: str) -> ToolCallFormat:
    """The format that a chat template uses; the generic one if no other is detected."""
    return next(call_format for call_format in TOOL_CALL_FORMATS if call_format.detects(source))
