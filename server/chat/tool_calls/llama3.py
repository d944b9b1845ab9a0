"""Llama 3.1 to 3.3: the output is `{"name": …, "parameters": …}`, optionally after `<|python_tag|>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, object_of, quoted
from server.chat.tool_calls.json_calls import JsonSyntax, call_rules
from server.chat.tool_calls.tool_call_format import (
    CallFrame,
    ToolCallFormat,
    ToolOptions,
    alternatives,
    arguments_rules,
)
from server.chat.tool_calls.unmarked_calls import UnmarkedCallParser, unmarked_grammar

_TAG = "<|python_tag|>"
_SYNTAX = JsonSyntax(CallFrame(""), arguments_key="parameters")


def _call_schema(tool: Tool) -> dict[str, Any]:
    return object_of({"name": {"const": tool.name}, "parameters": tool.schema})


class Llama3CallParser(UnmarkedCallParser):
    def __init__(self, *args: Any) -> None:
        self.openers = MarkerSearch([_TAG])
        super().__init__(*args)

    def whole(self) -> Parsing[None]:
        if (yield from self.after_space()) != "{":
            raise UnexpectedText
        yield from self.call_sequence()

    def rest(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.whole())


class Llama3Format(ToolCallFormat):
    name = "llama3"
    template_has = ("<|start_header_id|>", '"parameters": ')
    markers = (_TAG,)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return Llama3CallParser(options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        more = f"({quoted('; ')} call)*" if options.parallel else ""
        rules = [f"calls: call {more}", alternatives("call", options)]
        rules += [*call_rules(_SYNTAX, options), *arguments_rules(options)]
        return unmarked_grammar(options, "name", rules, _call_schema)

    def example(self) -> str:
        return '{"name": "tool name", "parameters": {"argument name": "value"}}'
