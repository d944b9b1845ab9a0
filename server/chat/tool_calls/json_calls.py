"""Calls as JSON objects that name the tool: most formats differ only in what encloses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.chat.streaming_parser import SPACE, MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted
from server.chat.tool_calls.tool_call_format import (
    ToolCallFormat,
    ToolOptions,
    alternatives,
    arguments_rules,
    join_rules,
    start_rules,
)

NAME_KEYS = ("name", "tool_name", "function")
ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass(frozen=True)
class JsonSyntax:
    """opener, closer: enclose a call, or the list of all calls if `listed`. gap: between them and the JSON.

    before, after: what the object has before the name and after the arguments, as grammar. between: separates
    calls. ignored: further markers, which are not content. start, comma, end: of the list.
    """

    opener: str
    closer: str
    gap: str = ""
    listed: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    before: str = ""
    after: str = ""
    between: str = "\n"
    ignored: tuple[str, ...] = ()
    start: str = "["
    comma: str = ", "
    end: str = "]"


class JsonCallParser(StreamingParser):
    """Reads calls that are JSON objects."""

    def call_list(self) -> Parsing[None]:
        """After the `[`."""
        while True:
            character = yield from self.after_space()
            if character == "{":
                yield from self.json_call()
            elif character == "]":
                return
            elif character != ",":
                raise UnexpectedText

    def call_sequence(self) -> Parsing[None]:
        """After the first `{`: consecutive objects."""
        yield from self.json_call()
        while True:
            character = yield from self.next()
            if character == "{":
                yield from self.json_call()
            elif character not in SPACE + ",;":
                self.unread(character)
                return

    def json_call(self) -> Parsing[None]:
        """After the `{`. Arguments that precede the name are emitted once the name is known."""
        has_name, has_arguments, early = False, False, list[str]()
        while True:
            key = yield from self.key()
            if key is None:
                break
            if key in NAME_KEYS and not has_name:
                character = yield from self.after_space()
                if character == "{":  # {"function": {"name": …, "arguments": …}}
                    yield from self.json_call()
                    has_name = has_arguments = True
                    continue
                self.unread(character)
                name = yield from self.value()
                self.begin_call(name if isinstance(name, str) else "")
                has_name = True
                if early:
                    self.emit_arguments("".join(early))
            elif key in ARGUMENT_KEYS and not has_arguments:
                yield from self.arguments(self.emit_arguments if has_name else early.append)
                has_arguments = True
            else:
                yield from self.json(lambda _: None)
        if not has_name:
            raise UnexpectedText
        if not has_arguments:
            self.emit_arguments("{}")

    def key(self) -> Parsing[str | None]:
        """The next key of an object with its colon, or None at the end."""
        character = yield from self.after_space()
        if character == ",":
            character = yield from self.after_space()
        if character == "}":
            return None
        self.unread(character)
        if character != '"':
            raise UnexpectedText
        key = yield from self.value()
        if (yield from self.after_space()) != ":":
            raise UnexpectedText
        return str(key)

    def arguments(self, emit: Callable[[str], None]) -> Parsing[None]:
        """An object. Some models write a string that contains it, or null."""
        character = yield from self.after_space()
        self.unread(character)
        if character == '"':
            emit(str((yield from self.value())))
        elif character == "n":
            yield from self.value()
            emit("{}")
        else:
            yield from self.json(emit)


class MarkedJsonCallParser(JsonCallParser):
    """Reads a call, or a list of calls, after each opener."""

    def __init__(self, syntax: JsonSyntax, *args: Any) -> None:
        self.syntax = syntax
        self.openers = MarkerSearch([syntax.opener, *syntax.ignored])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            if opener == self.syntax.opener:
                yield from self.attempt(opener, self.calls())

    def calls(self) -> Parsing[None]:
        yield from self.accept("```json")
        character = yield from self.after_space()
        if character == "[":
            yield from self.call_list()
        elif character == "{":
            yield from self.call_sequence()
        else:
            raise UnexpectedText
        if self.syntax.closer:
            yield from self.accept(self.syntax.closer)


class JsonToolCallFormat(ToolCallFormat):
    """A format whose calls are JSON between markers."""

    syntax: JsonSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.syntax.opener, self.syntax.closer, *self.syntax.ignored)))

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MarkedJsonCallParser(self.syntax, options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        syntax = self.syntax
        rules = [alternatives("call", options), *call_rules(syntax, options), *arguments_rules(options)]
        if syntax.listed:
            more = f"({quoted(syntax.comma)} call)*" if options.parallel else ""
            start, end = (
                terminals(syntax.gap + syntax.start),
                terminals(syntax.end + syntax.gap + syntax.closer),
            )
            rules.append(f"calls: {start} call {more} {end}")
        else:
            end = terminals(syntax.gap + syntax.closer)
            again = f"{terminals(syntax.between + syntax.opener + syntax.gap)} call {end}"
            more = f"({again})*" if options.parallel else ""
            rules.append(f"calls: {terminals(syntax.gap)} call {end} {more}")
        return join_rules([*start_rules(options, terminals, syntax.opener, "calls"), *rules])

    def example(self) -> str:
        syntax = self.syntax
        call = f'{{"{syntax.name_key}": "tool name", "{syntax.arguments_key}": {{"argument name": "value"}}}}'
        return (
            syntax.opener + syntax.gap + (f"[{call}]" if syntax.listed else call) + syntax.gap + syntax.closer
        )


def call_rules(syntax: JsonSyntax, options: ToolOptions) -> list[str]:
    rules = []
    for i, tool in enumerate(options.tools):
        head = f'"{syntax.name_key}": "{tool.name}", "{syntax.arguments_key}": '
        # A single literal where possible, so that the rule for plain text can exclude it as a whole.
        start = " ".join((quoted("{"), syntax.before, quoted(head))) if syntax.before else quoted("{" + head)
        end = quoted("}")
        rules.append(f"call_{i}: {start} arguments_{i} {syntax.after} {end}")
    return rules
