"""Hermes, Qwen 2.5 and 3, Granite 4 and many more: `<tool_call>{"name": …, "arguments": …}</tool_call>`."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class HermesFormat(JsonToolCallFormat):
    name = "hermes"
    template_has = ("<tool_call>",)
    template_lacks = ("<function=", "<arg_key>", "<invoke", "<tool_calls>")  # other formats' markers
    syntax = JsonSyntax(CallFrame("<tool_call>", "\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"))
