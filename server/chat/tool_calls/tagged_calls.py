"""Calls whose arguments are tags: `<parameter=city>Paris</parameter>`. Strings are not quoted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted
from server.chat.tool_calls.tool import Tool
from server.chat.tool_calls.tool_call_format import (
    ANY_TEXT,
    ToolCallFormat,
    ToolOptions,
    UnsupportedSchema,
    alternatives,
    join_rules,
    schema_rule,
    start_rules,
)

MAX_NAME = 256
# Keywords that the grammar enforces, or need not: in schemas of strings,
_STRING_KEYWORDS = {
    "type",
    "description",
    "title",
    "default",
    "examples",
    "enum",
    "const",
    "minLength",
    "maxLength",
}
# and of all arguments together.
_OBJECT_KEYWORDS = {
    *(
        "type",
        "properties",
        "required",
        "additionalProperties",
        "description",
        "title",
        "default",
        "examples",
    ),
    *("$schema", "$defs", "definitions", "$id"),
}


@dataclass(frozen=True)
class TaggedSyntax:
    """`opener` `function` name `>` (`parameter` name `>` value `close`)* `end` `closer`, each on its line."""

    opener: str
    closer: str
    function: str = "<function="
    parameter: str = "<parameter="
    close: str = "</parameter>"
    end: str = "</function>"


class TaggedCallParser(StreamingParser):
    def __init__(self, syntax: TaggedSyntax, tools: Mapping[str, Tool], *args: Any) -> None:
        self.syntax, self.tools = syntax, tools
        self.openers = MarkerSearch([syntax.opener])
        self.close = MarkerSearch(["\n" + syntax.close, syntax.close])
        super().__init__(tools, *args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.call())

    def call(self) -> Parsing[None]:
        syntax = self.syntax
        if not (yield from self.accept(syntax.function)):
            raise UnexpectedText
        name = yield from self.name()
        self.begin_call(name)
        properties = self.tools[name].schema.get("properties")
        before = "{"
        while (yield from self.accept(syntax.parameter)):
            key = yield from self.name()
            self.emit_arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            yield from self.argument(properties.get(key) if isinstance(properties, dict) else None)
        self.emit_arguments("{}" if before == "{" else "}")
        yield from self.accept(syntax.end)
        yield from self.accept(syntax.closer)

    def name(self) -> Parsing[str]:
        """Up to the `>`."""
        name = ""
        while True:
            character = yield from self.next()
            if character == ">":
                return name.strip()
            name += character
            if len(name) > MAX_NAME:
                raise UnexpectedText

    def argument(self, schema: Any) -> Parsing[None]:
        """The value, between line breaks that are not part of it. Strings are emitted as they arrive."""
        character = yield from self.next()
        if character != "\n":
            self.unread(character)
        if _is_text(schema):
            self.emit_arguments('"')
            yield from self.until(
                self.close, lambda text: self.emit_arguments(json.dumps(text, ensure_ascii=False)[1:-1])
            )
            self.emit_arguments('"')
            return
        value: list[str] = []
        yield from self.until(self.close, value.append)
        self.emit_arguments(_as_json("".join(value), schema))


def _is_text(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") in ("string", ["string"])


def _as_json(text: str, schema: Any) -> str:
    """A value whose schema allows more than strings, as JSON."""
    stripped = text.strip()
    # Templates show models `True` and `None`, as Python writes them.
    python = {"True": "true", "False": "false", "None": "null"}
    stripped = python.get(stripped, stripped)
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return stripped


class TaggedToolCallFormat(ToolCallFormat):
    """A format whose calls are tags."""

    syntax: TaggedSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.syntax.opener, self.syntax.closer)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return TaggedCallParser(
            self.syntax, {tool.name: tool for tool in options.tools}, new_id, options.limit
        )

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        syntax = self.syntax
        rules = [alternatives("call", options)]
        for i, tool in enumerate(options.tools):
            arguments, more = _argument_rules(f"argument_{i}", tool, syntax, terminals)
            start, end = terminals(f"{syntax.function}{tool.name}>"), terminals("\n" + syntax.end)
            rules.append(f"call_{i}: {start} {arguments} {end}")
            rules += more
        end = terminals("\n" + syntax.closer)
        again = f"({terminals(chr(10) + syntax.opener + chr(10))} call {end})*" if options.parallel else ""
        rules.append(f"calls: {terminals(chr(10))} call {end} {again}")
        return join_rules([*start_rules(options, terminals, syntax.opener, "calls"), *rules])

    def example(self) -> str:
        syntax = self.syntax
        argument = f"{syntax.parameter}argument name>\nvalue\n{syntax.close}"
        return f"{syntax.opener}\n{syntax.function}tool name>\n{argument}\n{syntax.end}\n{syntax.closer}"


def _argument_rules(
    rule: str, tool: Tool, syntax: TaggedSyntax, terminals: GrammarTerminals
) -> tuple[str, list[str]]:
    """Arguments in the order of the schema, optional unless required. Raises UnsupportedSchema."""
    schema = tool.schema
    if unknown := sorted(schema.keys() - _OBJECT_KEYWORDS):
        raise UnsupportedSchema(f"the schema of '{tool.name}' has the unsupported keyword {unknown[0]!r}")
    shared: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required, properties = schema.get("required") or (), schema.get("properties") or {}
    if odd := [
        name for name in (*properties, *required) if name not in properties or set(name) & {">", "\n"}
    ]:
        raise UnsupportedSchema(f"the argument {odd[0]!r} of '{tool.name}' cannot be written")
    sequence, rules = [], []
    for j, (name, value) in enumerate(properties.items()):
        own = f"{rule}_{j}"
        body, more = _value_rule(own, value, shared, syntax, terminals, tool)
        rules += [f"{own}: {terminals(f'{chr(10)}{syntax.parameter}{name}>{chr(10)}')} {body}", *more]
        sequence.append(own if name in required else f"{own}?")
    return " ".join(sequence), rules


def _value_rule(
    rule: str,
    schema: Any,
    shared: dict[str, Any],
    syntax: TaggedSyntax,
    terminals: GrammarTerminals,
    tool: Tool,
) -> tuple[str, list[str]]:
    close = "\n" + syntax.close
    if not _is_text(schema):
        # `true` as a schema means an empty one. Where the schema allows more than strings, those are quoted.
        whole = {**shared, **schema} if isinstance(schema, Mapping) else shared
        return f"{schema_rule(whole, tool)} {terminals(close)}", []
    if unknown := sorted(schema.keys() - _STRING_KEYWORDS):
        raise UnsupportedSchema(f"a string with {unknown[0]!r} is not supported")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            raise UnsupportedSchema("a string without possible values")
        return f"({' | '.join(map(quoted, texts))}) {terminals(close)}", []
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    text = (
        ANY_TEXT
        if shortest is None and longest is None
        else f"/(?s:.){{{shortest or 0},{'' if longest is None else longest}}}/"
    )
    return f"{rule}_text", [f"{rule}_text[lazy]: {text} {quoted(close)}"]
