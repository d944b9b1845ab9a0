"""Calls as JSON objects that name the tool; most formats differ only in what encloses these objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from server.chat.streaming_parser import SPACE, MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted
from server.chat.tool_calls.rendered_calls import ARGUMENTS, NAME, SECOND_NAME, RenderedCalls
from server.chat.tool_calls.tool_call_format import (
    CallFrame,
    ToolCallFormat,
    ToolOptions,
    WritableFormat,
    arguments_rules,
)

NAME_KEYS = ("name", "tool_name", "function")
ARGUMENT_KEYS = ("arguments", "parameters")
_CLOSING = re.compile(r"(\s*\])?(\s*(?:\[/\w+\]|</[^<>\s]+>|<\|[^<>\s]+\|>|```))?")


@dataclass(frozen=True)
class JsonSyntax:
    """Objects with a name and arguments in a frame.

    before, after: what the object contains before the name and after the arguments, as grammar. ignored:
    further markers, which are not content.
    """

    frame: CallFrame
    name_key: str = "name"
    arguments_key: str = "arguments"
    before: str = ""
    after: str = ""
    ignored: tuple[str, ...] = ()


class JsonCallParser(StreamingParser):
    """Reads calls that are JSON objects."""

    def call_list(self) -> Parsing[None]:
        """Parse the rest of a list of calls, after the `[`."""
        while True:
            character = yield from self.after_space()
            if character == "{":
                yield from self.json_call()
            elif character == "]":
                return
            elif character != ",":
                raise UnexpectedText

    def call_sequence(self) -> Parsing[None]:
        """Parse consecutive objects, after the first `{`."""
        yield from self.json_call()
        while True:
            character = yield from self.next()
            if character == "{":
                yield from self.json_call()
            elif character not in SPACE + ",;":
                self.unread(character)
                return

    def json_call(self) -> Parsing[None]:
        """Parse the rest of a call, after the `{`. Arguments that precede the name are emitted once the name
        is known.
        """
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
        """The next key of an object, with its colon consumed, or None at the end of the object."""
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
        """Parse the arguments, an object. Some models write a string that contains it, or null."""
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
        self.closer = syntax.frame.last.strip().removeprefix("]").strip()
        self.openers = MarkerSearch([syntax.frame.opener, *syntax.ignored])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            if opener == self.syntax.frame.opener:
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
        if self.closer:
            yield from self.accept(self.closer)


class JsonToolCallFormat(WritableFormat):
    """A format whose calls are JSON between markers."""

    syntax: JsonSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        frame = self.syntax.frame
        closer = frame.last.strip().removeprefix("]").strip()
        return tuple(filter(None, (frame.opener, closer, *self.syntax.ignored)))

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MarkedJsonCallParser(self.syntax, options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        rules = [*self.call_rules(options), *arguments_rules(options)]
        return self.syntax.frame.grammar(rules, options, terminals)

    def call_rules(self, options: ToolOptions) -> list[str]:
        """A rule `call_<i>` for each tool, with its `arguments_<i>`."""
        return call_rules(self.syntax, options)

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        return self.syntax.frame.written(self.written_call(*call) for call in calls)

    def written_call(self, name: str, arguments: str) -> str:
        keys, name = self.syntax, json.dumps(name, ensure_ascii=False)
        return f'{{"{keys.name_key}": {name}, "{keys.arguments_key}": {arguments}}}'

    def fitted(self, calls: RenderedCalls) -> ToolCallFormat:
        syntax = derive_json_syntax(calls)
        if syntax is None or syntax.frame.opener != self.syntax.frame.opener:
            return self
        fitted = copy(self)
        fitted.syntax = replace(self.syntax, frame=syntax.frame.ending_as(self.syntax.frame))
        return fitted


def call_rules(syntax: JsonSyntax, options: ToolOptions) -> list[str]:
    rules = []
    for i, tool in enumerate(options.tools):
        head = f'"{syntax.name_key}": "{tool.name}", "{syntax.arguments_key}": '
        # A single literal where possible, so that the rule for plain text can exclude it as a whole.
        start = " ".join((quoted("{"), syntax.before, quoted(head))) if syntax.before else quoted("{" + head)
        end = quoted("}")
        rules.append(f"call_{i}: {start} arguments_{i} {syntax.after} {end}")
    return rules


def derive_json_syntax(calls: RenderedCalls) -> JsonSyntax | None:
    """The syntax of calls that a template renders as JSON objects; None if it does not, or has no opener."""
    text = calls.one if calls.two is None else calls.two
    call = _find_call(text, NAME, 0, ARGUMENTS)
    if call is None:
        return None
    start, end, name_key, arguments_key = call
    *ignored, opener = (
        text[:start].strip().removesuffix("[").strip().split("\n")
    )  # a new turn may begin before
    if not opener:
        return None
    first = text[text.index(opener) + len(opener) : start]
    second = None if calls.two is None else _find_call(text, SECOND_NAME, end, {})
    last = _closing(opener, text[end if second is None else second[1] :], listed="[" in first)
    again = f"{last}\n{opener}{first}" if second is None else text[end : second[0]]
    ignored = [line for line in ignored if line]
    return JsonSyntax(CallFrame(opener, first, again, last), name_key, arguments_key, ignored=tuple(ignored))


def _find_call(text: str, name: str, start: int, arguments: Any) -> tuple[int, int, str, str] | None:
    """Where a call begins and ends, and the keys of its name and arguments."""
    decoder = json.JSONDecoder()
    for match in re.compile(r"\{").finditer(text, start):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        names = [key for key in NAME_KEYS if value.get(key) == name]
        keys = [key for key in ARGUMENT_KEYS if value.get(key) == arguments]
        if names and keys:
            return match.start(), end, names[0], keys[0]
    return None


def _closing(opener: str, text: str, listed: bool) -> str:
    """The end of a list and the marker that matches the opener; further text ends the turn."""
    match = _CLOSING.match(text)
    assert match is not None
    end, marker = match[1] or "", match[2] or ""
    if _letters(marker.strip()) != _letters(opener) and marker.strip() != "```":
        marker = ""
    return (end if listed else "") + marker


def _letters(marker: str) -> str:
    return re.sub(r"\W", "", marker).replace("START", "END")
