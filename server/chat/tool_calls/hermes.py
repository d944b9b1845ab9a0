"""Hermes, Qwen 2.5 and 3, Granite 4 and many more: `<tool_call>{"name": …, "arguments": …}</tool_call>`."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat

_OTHERS = ("<function=", "<arg_key>", "<invoke", "<tool_calls>")  # other formats with this marker


class HermesFormat(JsonToolCallFormat):
    name = "hermes"
    syntax = JsonSyntax("<tool_call>", "</tool_call>", gap="\n")

    def detects(self, source: str) -> bool:
        return "<tool_call>" in source and not any(marker in source for marker in _OTHERS)
