"""Granite 3: `<|tool_call|>[{"name": …, "arguments": …}]`. Granite 4 calls as Hermes does."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class GraniteFormat(JsonToolCallFormat):
    name = "granite"
    template_has = ("<|tool_call|>", "<|end_of_role|>")
    syntax = JsonSyntax(CallFrame("<|tool_call|>", "[", ", ", "]"))
