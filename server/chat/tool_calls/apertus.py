"""Apertus: a list of objects with the name as key, `<|tools_prefix|>[{"name": {…}}]<|tools_suffix|>`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from server.chat.streaming_parser import Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted
from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat, MarkedJsonCallParser
from server.chat.tool_calls.tool_call_format import (
    CallFrame,
    ToolOptions,
    alternatives,
    arguments_rules,
    join_rules,
    start_rules,
)


class ApertusCallParser(MarkedJsonCallParser):
    def json_call(self) -> Parsing[None]:
        """After the `{`."""
        name = yield from self.key()
        self.begin_call(name or "")
        yield from self.arguments(self.emit_arguments)
        if (yield from self.after_space()) != "}":
            raise UnexpectedText


class ApertusFormat(JsonToolCallFormat):
    name = "apertus"
    syntax = JsonSyntax(CallFrame("<|tools_prefix|>", "[", ", ", "]<|tools_suffix|>"))

    def detects(self, source: str) -> bool:
        return self.syntax.frame.opener in source

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return ApertusCallParser(self.syntax, options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        frame = self.syntax.frame
        rules = [alternatives("call", options), *arguments_rules(options)]
        for i, tool in enumerate(options.tools):
            head = quoted(f"{{{json.dumps(tool.name)}: ")
            rules.append(f"call_{i}: {head} arguments_{i} {quoted('}')}")
        start = start_rules(options, terminals, frame.opener, "calls")
        return join_rules([*start, frame.rule(options, terminals), *rules])

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        objects = (f"{{{json.dumps(name)}: {arguments}}}" for name, arguments in calls)
        frame = self.syntax.frame
        return frame.opener + frame.first + frame.again.join(objects) + frame.last
