"""All tool-call formats, and the detection of the one that a template uses."""

from __future__ import annotations

from server.chat.tool_calls.apertus import ApertusFormat
from server.chat.tool_calls.command_r import CommandRFormat, CommandRPlusFormat
from server.chat.tool_calls.deepseek import (
    DeepSeekR1Format,
    DeepSeekV4Format,
    DeepSeekV31Format,
    DeepSeekV32Format,
)
from server.chat.tool_calls.functionary import Functionary32Format, FunctionaryFormat
from server.chat.tool_calls.gemma import GemmaFormat
from server.chat.tool_calls.generic import GenericFormat
from server.chat.tool_calls.glm import GlmFormat, Hunyuan3Format
from server.chat.tool_calls.granite import GraniteFormat
from server.chat.tool_calls.harmony import HarmonyFormat
from server.chat.tool_calls.hermes import HermesFormat
from server.chat.tool_calls.kimi import KimiFormat
from server.chat.tool_calls.kimi_k3 import KimiK3Format
from server.chat.tool_calls.lfm2 import Lfm2Format
from server.chat.tool_calls.llama3 import Llama3Format
from server.chat.tool_calls.minicpm import MiniCpmFormat
from server.chat.tool_calls.minimax import MiniMaxM2Format, MiniMaxM3Format
from server.chat.tool_calls.mistral import MistralListFormat, MistralNamedFormat
from server.chat.tool_calls.muse import MuseFormat
from server.chat.tool_calls.qwen_coder import QwenCoderFormat, SeedFormat
from server.chat.tool_calls.solar import SolarFormat
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
    DeepSeekV32Format(),
    DeepSeekV4Format(),
    KimiFormat(),
    GemmaFormat(),
    Lfm2Format(),
    ApertusFormat(),
    GraniteFormat(),
    MiniMaxM3Format(),
    MiniMaxM2Format(),
    KimiK3Format(),
    SolarFormat(),
    MuseFormat(),
    QwenCoderFormat(),
    SeedFormat(),
    GlmFormat(),
    Hunyuan3Format(),
    MiniCpmFormat(),
    HermesFormat(),
    Functionary32Format(),
    FunctionaryFormat(),
    Llama3Format(),
    GenericFormat(),
)


def detect_tool_call_format(source: str) -> ToolCallFormat:
    """The format that a chat template uses; the generic one if none is detected."""
    return next(call_format for call_format in TOOL_CALL_FORMATS if call_format.detects(source))
