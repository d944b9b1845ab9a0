"""Apertus: a list of objects with the name as key, `<|tools_prefix|>[{"name": {…}}]<|tools_suffix|>`."""

from __future__ import annotations

import json
from collections.abc import Callable

from server.chat.streaming_parser import Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import quoted
from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat, MarkedJsonCallParser
from server.chat.tool_calls.tool_call_format import CallFrame, ToolOptions


class ApertusCallParser(MarkedJsonCallParser):
    def json_call(self) -> Parsing[None]:
        """Parse the rest of a call, after the `{`."""
        name = yield from self.key()
        self.begin_call(name or "")
        yield from self.arguments(self.emit_arguments)
        if (yield from self.after_space()) != "}":
            raise UnexpectedText


class ApertusFormat(JsonToolCallFormat):
    name = "apertus"
    syntax = JsonSyntax(CallFrame("<|tools_prefix|>", "[", ", ", "]<|tools_suffix|>"))
    template_has = (syntax.frame.opener,)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return ApertusCallParser(self.syntax, options.names, new_id, options.limit)

    def call_rules(self, options: ToolOptions) -> list[str]:
        heads = (quoted(f"{{{json.dumps(tool.name)}: ") for tool in options.tools)
        return [f"call_{i}: {head} arguments_{i} {quoted('}')}" for i, head in enumerate(heads)]

    def written_call(self, name: str, arguments: str) -> str:
        return f"{{{json.dumps(name, ensure_ascii=False)}: {arguments}}}"
