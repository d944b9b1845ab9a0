"""Gemma 4: `<|tool_call>call:name{key:<|"|>text<|"|>,other:[1,true]}<tool_call|>`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from server.chat.streaming_parser import SPACE, MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted
from server.chat.tool_calls.python_values import python_as_json
from server.chat.tool_calls.schema_rules import MAX_DEPTH, BracketRules
from server.chat.tool_calls.tool_call_format import CallFrame, ToolCallFormat, ToolOptions

MAX_NAME = 256
_QUOTE = '<|"|>'
_FRAME = CallFrame("<|tool_call>", "call:", "}<tool_call|><|tool_call>call:", "}<tool_call|>")


class GemmaCallParser(StreamingParser):
    def __init__(self, *args: Any) -> None:
        self.openers, self.quote = MarkerSearch([_FRAME.opener]), MarkerSearch([_QUOTE])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.call())

    def call(self) -> Parsing[None]:
        if not (yield from self.accept("call:")):
            raise UnexpectedText
        self.begin_call((yield from self.word("{")))
        yield from self.next()
        yield from self.object(0)
        yield from self.accept("<tool_call|>")

    def word(self, ends: str) -> Parsing[str]:
        """Unquoted text up to one of these characters, which is not consumed."""
        word = ""
        while (character := (yield from self.next())) not in ends:
            word += character
            if len(word) > MAX_NAME:
                raise UnexpectedText
        self.unread(character)
        return word.strip()

    def object(self, depth: int) -> Parsing[None]:
        """Parse the rest of an object, after the `{`."""
        self.emit_arguments("{")
        comma = ""
        while (yield from self.following()) != "}":
            self.emit_arguments(comma)
            yield from self.key()
            if (yield from self.after_space()) != ":":
                raise UnexpectedText
            self.emit_arguments(": ")
            yield from self.value_of(depth)
            comma = ", "
        yield from self.next()
        self.emit_arguments("}")

    def following(self) -> Parsing[str]:
        """The next character other than white space and a comma, without consuming it."""
        character = yield from self.after_space()
        if character == ",":
            character = yield from self.after_space()
        self.unread(character)
        return character

    def key(self) -> Parsing[None]:
        if (yield from self.accept(_QUOTE)):
            yield from self.text_argument(self.quote)
        else:
            self.emit_arguments(json.dumps((yield from self.word(":")).strip('"'), ensure_ascii=False))

    def value_of(self, depth: int) -> Parsing[None]:
        if depth > MAX_DEPTH:
            raise UnexpectedText
        character = yield from self.after_space()
        self.unread(character)
        if character == "<":
            if not (yield from self.accept(_QUOTE)):
                raise UnexpectedText
            yield from self.text_argument(self.quote)
        elif character == '"':
            yield from self.json(self.emit_arguments)
        elif character == "{":
            yield from self.next()
            yield from self.object(depth + 1)
        elif character == "[":
            yield from self.next()
            yield from self.items(depth + 1)
        else:
            word = yield from self.word(",}]<" + SPACE)
            value = python_as_json(word)
            self.emit_arguments(json.dumps(word, ensure_ascii=False) if value is None else value)

    def items(self, depth: int) -> Parsing[None]:
        """Parse the rest of a list, after the `[`."""
        self.emit_arguments("[")
        comma = ""
        while (yield from self.following()) != "]":
            self.emit_arguments(comma)
            yield from self.value_of(depth)
            comma = ", "
        yield from self.next()
        self.emit_arguments("]")


class GemmaRules(BracketRules):
    """Strings are between Gemma's own quotes; keys are unquoted and sorted."""

    comma = ","

    def order(self, properties: Mapping[str, Any]) -> list[str]:
        return sorted(properties, key=str.lower)

    def key(self, name: str) -> str:
        if not name or set(name) & set(':{}[],<>"' + SPACE):
            raise self.unsupported(f"has the argument {name!r}, which cannot be written")
        return self.terminals(f"{name}:")

    def any_key(self) -> str:
        return r"/[^:{}\[\],<>\"\s]+:/"

    def text(self, shortest: int | None, longest: int | None) -> str:
        return f"{self.terminals(_QUOTE)} {self.text_before(_QUOTE, shortest, longest)}"

    def text_literal(self, value: str) -> str:
        if _QUOTE in value:
            raise self.unsupported("has a text that cannot be written")
        quote = self.terminals(_QUOTE)
        return f"{quote} {quoted(value)} {quote}"


class GemmaFormat(ToolCallFormat):
    name = "gemma"
    template_has = ("<|tool_call>call:",)
    markers = (_FRAME.opener, "<tool_call|>", _QUOTE)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return GemmaCallParser(options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        rules: list[str] = []
        for i, tool in enumerate(options.tools):
            arguments = GemmaRules(f"arguments_{i}", tool, terminals)
            rules += [f"call_{i}: {terminals(tool.name + '{')} {arguments.arguments()}", *arguments.rules]
        return _FRAME.grammar(rules, options, terminals)

    def example(self) -> str:
        return f"{_FRAME.opener}call:tool name{{argument name:{_QUOTE}value{_QUOTE}}}<tool_call|>"
