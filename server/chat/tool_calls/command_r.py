"""Command R: a list of `{"tool_name": …, "parameters": …}`, between markers or after `Action:`."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class CommandRFormat(JsonToolCallFormat):
    """Command R7B and later."""

    name = "command-r"
    template_has = ("<|START_ACTION|>",)
    syntax = JsonSyntax(
        CallFrame("<|START_ACTION|>", "[\n    ", ",\n    ", "\n]<|END_ACTION|>"),
        name_key="tool_name",
        arguments_key="parameters",
        before=r'"\"tool_call_id\": \"" /[0-9]{1,2}/ "\", "',
        ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    )


class CommandRPlusFormat(JsonToolCallFormat):
    """Command R and R+ (2024)."""

    name = "command-r-plus"
    template_has = ("Action:", '"tool_name"')
    syntax = JsonSyntax(
        CallFrame("Action:", "```json\n[\n    ", ",\n    ", "\n]```"),
        name_key="tool_name",
        arguments_key="parameters",
    )
