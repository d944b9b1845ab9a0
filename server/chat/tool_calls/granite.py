"""Granite 3: `<|tool_call|>[{"name": …, "arguments": …}]`. Granite 4 calls as Hermes does."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class GraniteFormat(JsonToolCallFormat):
    name = "granite"
    syntax = JsonSyntax(CallFrame("<|tool_call|>", "[", ", ", "]"))

    def detects(self, source: str) -> bool:
        return "<|tool_call|>" in source and "<|end_of_role|>" in source
