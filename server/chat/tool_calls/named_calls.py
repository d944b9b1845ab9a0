"""Calls whose name precedes the JSON of the arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from server.chat.streaming_parser import Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.json_calls import JsonCallParser
from server.chat.tool_calls.rendered_calls import ARGUMENTS, NAME, SECOND_NAME, RenderedCalls
from server.chat.tool_calls.tool_call_format import (
    CallFrame,
    FramedCallParser,
    ToolCallFormat,
    ToolOptions,
    WritableFormat,
    arguments_rules,
    pieces_of,
)

MAX_NAME = 256


@dataclass(frozen=True)
class NamedSyntax:
    """A call is: name `middle` {…}. What precedes the name in every call is the end of `frame.first`.

    optional: a marker after the name, followed by anything, that models may insert.
    """

    frame: CallFrame
    middle: str
    optional: str = ""


class NamedCallParser(FramedCallParser, JsonCallParser):
    def __init__(self, syntax: NamedSyntax, *args: Any) -> None:
        self.syntax = syntax
        super().__init__(syntax.frame, *args)

    def call(self) -> Parsing[None]:
        yield from self.head()
        yield from self.json(self.emit_arguments)
        for closer in self.syntax.frame.closers:
            yield from self.accept(closer)

    def head(self) -> Parsing[None]:
        name = ""
        while not name.endswith(self.syntax.middle):
            character = yield from self.next()
            if character == "{":  # the marker is missing
                self.unread(character)
                break
            name += character
            if len(name) > MAX_NAME:
                raise UnexpectedText
        name = name.removesuffix(self.syntax.middle)
        if self.syntax.optional:
            name = name.partition(self.syntax.optional)[0]
        self.begin_call(self.tool_name(name.strip()))

    def tool_name(self, name: str) -> str:
        return name


class NamedToolCallFormat(WritableFormat):
    """A format in which the name precedes JSON."""

    syntax: NamedSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        syntax, frame = self.syntax, self.syntax.frame
        texts = (frame.opener, frame.first, syntax.middle, frame.last, syntax.optional)
        return tuple(piece for text in texts for piece in pieces_of(text))

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return NamedCallParser(self.syntax, options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        rules = arguments_rules(options)
        for i, tool in enumerate(options.tools):
            rules.append(f"call_{i}: {self.head_rule(tool.name, terminals)} arguments_{i}")
        return self.syntax.frame.grammar(rules, options, terminals)

    def head_rule(self, name: str, terminals: GrammarTerminals) -> str:
        """The part before the arguments."""
        return terminals(name + self.syntax.middle)

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        return self.syntax.frame.written(name + self.syntax.middle + arguments for name, arguments in calls)

    def fitted(self, calls: RenderedCalls) -> ToolCallFormat:
        syntax = derive_named_syntax(calls)
        if syntax is None or syntax.frame.opener != self.syntax.frame.opener:
            return self
        fitted = copy(self)
        fitted.syntax = replace(
            syntax, frame=syntax.frame.ending_as(self.syntax.frame), optional=self.syntax.optional
        )
        return fitted


def derive_named_syntax(calls: RenderedCalls) -> NamedSyntax | None:
    """The syntax of calls that a template renders as a name and JSON; None if it does not."""
    text = calls.one if calls.two is None else calls.two
    name = text.index(NAME)
    middle, end = _find_arguments(text, name + len(NAME), ARGUMENTS)
    before = text[:name]
    if not middle or not before.strip():
        return None
    opener = pieces_of(before)[0]
    first = before[before.index(opener) + len(opener) :]
    if calls.two is None:
        last = text[end:]
        return NamedSyntax(CallFrame(opener, first, f"{last}\n{opener}{first}", last), middle)
    second = text.index(SECOND_NAME, end)
    again, (other, finish) = text[end:second], _find_arguments(text, second + len(SECOND_NAME), {})
    if other != middle:
        return None
    return NamedSyntax(CallFrame(opener, first, again, text[finish:]), middle)


def _find_arguments(text: str, start: int, arguments: object) -> tuple[str, int]:
    """The text before the arguments, and where they end. "": there are none."""
    begin = text.find("{", start)
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return "", 0
    return (text[start:begin], end) if begin > 0 and value == arguments else ("", 0)
