"""For models not trained to call tools: the output is `{"tool_calls": [{"name": …, "arguments": …}]}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import Parsing, StreamingParser, UnexpectedText
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

_SYNTAX = JsonSyntax(CallFrame(""))
_KEY = "tool_calls"


class GenericCallParser(UnmarkedCallParser):
    def whole(self) -> Parsing[None]:
        fenced = yield from self.accept("```json")
        if (yield from self.after_space()) != "{":
            raise UnexpectedText
        key = yield from self.key()
        character = yield from self.after_space()
        if key == _KEY and character == "[":
            yield from self.call_list()
        elif key in (_KEY, "tool_call") and character == "{":
            yield from self.json_call()
        else:
            raise UnexpectedText
        yield from self.accept("}")
        if fenced:
            yield from self.accept("```")


class GenericFormat(ToolCallFormat):
    name = "generic"
    markers = ()

    def detects(self, source: str) -> bool:
        return True

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return GenericCallParser(options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        more = f"({quoted(', ')} call)*" if options.parallel else ""
        head, tail = quoted(f'{{"{_KEY}": ['), quoted("]}")
        rules = [f"calls: {head} call {more} {tail}", alternatives("call", options)]
        rules += [*call_rules(_SYNTAX, options), *arguments_rules(options)]

        def schema(tool: Tool) -> dict[str, Any]:
            call = object_of({"name": {"const": tool.name}, "arguments": tool.schema})
            return object_of({_KEY: {"type": "array", "items": call, "minItems": 1, "maxItems": 1}})

        return unmarked_grammar(options, _KEY, rules, schema)

    def example(self) -> str:
        return '{"tool_calls": [{"name": "tool name", "arguments": {"argument name": "value"}}]}'
