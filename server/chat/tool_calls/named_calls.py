"""Calls whose name precedes the JSON of the arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.json_calls import JsonCallParser
from server.chat.tool_calls.tool_call_format import (
    ToolCallFormat,
    ToolOptions,
    alternatives,
    arguments_rules,
    join_rules,
    start_rules,
)

MAX_NAME = 256


@dataclass(frozen=True)
class NamedSyntax:
    """`section` `opener` name `middle` {…} `closer` `end`; section and end occur once, the rest per call.

    optional: a marker after the name, followed by anything, that models may insert. between: separates calls.
    """

    opener: str
    middle: str
    closer: str = ""
    section: str = ""
    end: str = ""
    between: str = ""
    optional: str = ""


class NamedCallParser(JsonCallParser):
    """Reads a call after each opener."""

    def __init__(self, syntax: NamedSyntax, *args: Any) -> None:
        self.syntax = syntax
        self.openers = MarkerSearch([syntax.section, syntax.opener])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        syntax = self.syntax
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.section() if opener == syntax.section else self.call())
            if syntax.end:
                yield from self.accept(syntax.end)

    def section(self) -> Parsing[None]:
        if not (yield from self.accept(self.syntax.opener)):
            raise UnexpectedText
        yield from self.call()

    def call(self) -> Parsing[None]:
        """After the opener."""
        yield from self.head()
        yield from self.json(self.emit_arguments)
        if self.syntax.closer:
            yield from self.accept(self.syntax.closer.strip())

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


class NamedToolCallFormat(ToolCallFormat):
    """A format in which the name precedes JSON."""

    syntax: NamedSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        syntax = self.syntax
        markers = (syntax.section, syntax.opener, syntax.middle, syntax.closer, syntax.end, syntax.optional)
        return tuple(marker.strip() for marker in markers if marker.strip())

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return NamedCallParser(self.syntax, options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        syntax = self.syntax
        rules = [alternatives("call", options), *arguments_rules(options)]
        for i, tool in enumerate(options.tools):
            rules.append(
                f"call_{i}: {terminals(tool.name + syntax.middle)} arguments_{i} {terminals(syntax.closer)}"
            )
        more = f"({terminals(syntax.between + syntax.opener)} call)*" if options.parallel else ""
        first = terminals(syntax.opener) if syntax.section else ""
        rules.append(f"calls: {first} call {more} {terminals(syntax.end)}")
        return join_rules(
            [*start_rules(options, terminals, syntax.section or syntax.opener, "calls"), *rules]
        )

    def example(self) -> str:
        syntax = self.syntax
        arguments = '{"argument name": "value"}'
        return (
            f"{syntax.section}{syntax.opener}tool name{syntax.middle}{arguments}{syntax.closer}{syntax.end}"
        )
