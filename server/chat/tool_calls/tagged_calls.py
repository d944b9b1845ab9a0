"""Calls whose arguments are tags: `<parameter=city>Paris</parameter>`. Strings are not quoted."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from engine.constraint.compiler import MAX_BYTES
from engine.exact_json import loads, write
from server.chat.request import Tool
from server.chat.streaming_parser import SPACE, MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted, repeated
from server.chat.tool_calls.python_values import python_as_json
from server.chat.tool_calls.rendered_calls import ARGUMENTS, NAME, SECOND_NAME, RenderedCalls
from server.chat.tool_calls.schema_types import (
    ALL_TYPES,
    allows_only_text,
    allows_text_or_null,
    fault_of,
    json_types,
)
from server.chat.tool_calls.tool_call_format import (
    ANY_TEXT,
    CallFrame,
    FramedCallParser,
    ToolCallFormat,
    ToolOptions,
    UnsupportedSchema,
    WritableFormat,
    pieces_of,
    schema_rule,
)

MAX_NAME = 256
TYPE = "{type}"  # stands for the type of a value in a syntax
_NAME_CHARACTERS = string.ascii_letters + string.digits + "_.-"
_CDATA, _CDATA_END = "<![CDATA[", "]]>"
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
    """A call is: name `name_close` (`key_open` key `key_close` value `value_close`)*.

    json_key_close: in place of `key_close` where the value is JSON; "": the schema tells which it is.
    empty: in place of arguments if there are none.
    cdata: strings with special characters are in a CDATA section.
    python: what is true may also be written `True`.
    """

    frame: CallFrame
    name_close: str
    key_open: str
    key_close: str
    value_close: str
    json_key_close: str = ""
    empty: str = ""
    cdata: bool = False
    python: bool = False


class TaggedCallParser(FramedCallParser):
    def __init__(self, syntax: TaggedSyntax, tools: Mapping[str, Tool], *args: Any) -> None:
        self.syntax, self.tools = syntax, tools
        key_closes = [pieces_of(text) for text in (syntax.key_close, syntax.json_key_close) if text]
        self.key_closes = MarkerSearch([pieces[0] for pieces in key_closes])
        self.after_key = {pieces[0]: pieces[1:] for pieces in key_closes}
        close = syntax.value_close.strip()
        self.in_lines = syntax.key_close.endswith("\n")
        self.close = MarkerSearch(["\n" + close, close] if self.in_lines else [close])
        super().__init__(syntax.frame, tools, *args)

    def call(self) -> Parsing[None]:
        syntax = self.syntax
        name = yield from self.name()
        if syntax.name_close.strip() and not (yield from self.accept(syntax.name_close.strip())):
            raise UnexpectedText
        self.begin_call(name)
        properties = self.tools[name].schema.get("properties")
        before = "{"
        while (yield from self.accept(syntax.key_open.strip())):
            key, is_json = yield from self.key()
            self.emit_arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            schema = properties.get(key) if isinstance(properties, dict) else None
            yield from self.argument(schema, is_json)
        self.emit_arguments("{}" if before == "{" else "}")
        for closer in syntax.frame.closers:
            yield from self.accept(closer)

    def name(self) -> Parsing[str]:
        character = yield from self.after_space()
        name = ""
        while character in _NAME_CHARACTERS and len(name) <= MAX_NAME:
            name += character
            character = yield from self.next()
        self.unread(character)
        return name

    def key(self) -> Parsing[tuple[str, bool | None]]:
        """Read a key, and whether its value is JSON; None: the schema decides."""
        key: list[str] = []

        def add(text: str) -> None:
            key.append(text)
            if sum(map(len, key)) > MAX_NAME:
                raise UnexpectedText

        closer = yield from self.until(self.key_closes, add)
        for piece in self.after_key[closer]:
            yield from self.accept(piece)
        syntax = self.syntax
        is_json = closer == pieces_of(syntax.json_key_close)[0] if syntax.json_key_close else None
        return "".join(key).strip(), is_json

    def argument(self, schema: Any, is_json: bool | None) -> Parsing[None]:
        """Read a value up to its closing tag. Strings are emitted as they arrive."""
        character = yield from self.next()
        if character != "\n" or not self.in_lines:
            self.unread(character)
        if character in "<" + SPACE and self.syntax.cdata and (yield from self.accept(_CDATA)):
            yield from self.text_argument(MarkerSearch([_CDATA_END]))
            yield from self.accept(self.syntax.value_close.strip())
            return
        if allows_only_text(schema) if is_json is None else not is_json:
            yield from self.text_argument(self.close)
            return
        value: list[str] = []
        yield from self.until(self.close, value.append)
        self.emit_arguments(value_as_json("".join(value), schema))


def value_as_json(text: str, schema: Any) -> str:
    """A value whose schema allows more than strings, as JSON. Some templates show models Python syntax."""
    types = json_types(schema)
    value = python_as_json(text.strip())
    if value is not None and (types is None or "string" not in types or json_type(value) in types):
        return value
    return json.dumps(text, ensure_ascii=False)


def json_type(text: str) -> str:
    """The type of a JSON value, judged by its first character."""
    return {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}.get(
        text[:1], "number"
    )


class TaggedToolCallFormat(WritableFormat):
    """A format whose calls are tags."""

    syntax: TaggedSyntax

    @property
    def markers(self) -> tuple[str, ...]:
        syntax, frame = self.syntax, self.syntax.frame
        texts = (
            *(frame.opener, frame.first, frame.last, syntax.name_close, syntax.key_open),
            *(syntax.key_close, syntax.json_key_close, syntax.value_close),
        )
        return tuple(piece for text in texts for piece in pieces_of(text))

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        tools = {tool.name: tool for tool in options.tools}
        return TaggedCallParser(self.syntax, tools, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        syntax, rules = self.syntax, list[str]()
        for i, tool, arguments, more in argument_rules(options, syntax, terminals):
            rules += [f"call_{i}: {terminals(tool.name + syntax.name_close)} {arguments}", *more]
        return syntax.frame.grammar(rules, options, terminals)

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        return self.syntax.frame.written(self._written_call(name, loads(text)) for name, text in calls)

    def _written_call(self, name: str, arguments: dict[str, Any]) -> str:
        syntax, tags = self.syntax, list[str]()
        for key, value in arguments.items():
            is_text = isinstance(value, str)
            key_close = syntax.key_close if is_text else syntax.json_key_close or syntax.key_close
            text = value if is_text else write(value, ensure_ascii=False)
            tags.append(syntax.key_open + key + key_close + text + syntax.value_close)
        return name + syntax.name_close + ("".join(tags) or syntax.empty)

    def fitted(self, calls: RenderedCalls) -> ToolCallFormat:
        syntax = derive_tagged_syntax(calls)
        if syntax is None or syntax.frame.opener != self.syntax.frame.opener:
            return self
        fitted = copy(self)
        fitted.syntax = replace(
            syntax, frame=syntax.frame.ending_as(self.syntax.frame), cdata=self.syntax.cdata
        )
        return fitted


def derive_tagged_syntax(calls: RenderedCalls) -> TaggedSyntax | None:
    """The syntax of calls that a template renders as tags; None if it does not."""
    (a, a_value), (b, b_value) = ARGUMENTS.items()
    cut = _cut(calls.one, NAME, a, str(a_value), b, str(b_value))
    if cut is None or not cut[0].strip() or "{" in cut[1] or SECOND_NAME not in calls.empty:
        return None
    before, to_key, key_close, to_next_key, json_key_close, after = cut
    without = calls.empty.partition(SECOND_NAME)[2]
    split = next(
        (
            (to_key[:-n], to_key[-n:], to_next_key[:-n], after[len(to_next_key) - n :])
            for n in range(_shortest_key_open(to_key), len(to_key) + 1)
            if to_next_key.endswith(to_key[-n:]) and after.startswith(to_next_key[:-n])
        ),
        None,
    )
    if split is None:
        return None
    name_close, key_open, value_close, last = split
    if not value_close.strip() or not without.startswith(name_close) or not without.endswith(last):
        return None
    opener = pieces_of(before)[0]
    first = before[before.index(opener) + len(opener) :]
    again = f"{last}\n{opener}{first}"
    if calls.two is not None:
        second = calls.two.partition(SECOND_NAME)[0].removeprefix(calls.one[: len(calls.one) - len(last)])
        again = second
    return TaggedSyntax(
        CallFrame(opener, first, again, last),
        name_close,
        key_open,
        key_close,
        value_close,
        "" if json_key_close == key_close else json_key_close,
        without[len(name_close) : len(without) - len(last)],
        python=calls.python,
    )


def _cut(text: str, *words: str) -> list[str] | None:
    """The texts around the words, which come in this order."""
    parts = []
    for word in words:
        before, word, text = text.partition(word)
        if not word:
            return None
        parts.append(before)
    return [*parts, text]


def _shortest_key_open(text: str) -> int:
    """The length of the last tag, which opens a key."""
    return len(text) - max(text.rfind("<"), 0)


def argument_rules(
    options: ToolOptions, syntax: TaggedSyntax, terminals: GrammarTerminals
) -> Iterator[tuple[int, Tool, str, list[str]]]:
    """For each tool, its number, its arguments, and the rules that these need. Raises UnsupportedSchema."""
    room = MAX_BYTES
    for i, tool in enumerate(options.tools):
        arguments, rules = _rules_of(tool, f"argument_{i}", syntax, terminals, room)
        room -= sum(map(len, rules))
        yield i, tool, arguments, rules


def _rules_of(
    tool: Tool, rule: str, syntax: TaggedSyntax, terminals: GrammarTerminals, room: int
) -> tuple[str, list[str]]:
    """Arguments in the order of the schema, optional unless required.

    room: characters that the rules may take, since each argument repeats the schema's definitions.
    """
    schema = tool.schema
    if fault := fault_of(schema):
        raise UnsupportedSchema(f"the schema of '{tool.name}' {fault}")
    if unknown := sorted(schema.keys() - _OBJECT_KEYWORDS):
        raise UnsupportedSchema(f"the schema of '{tool.name}' has the unsupported keyword {unknown[0]!r}")
    shared: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required, properties = schema.get("required") or (), schema.get("properties") or {}
    unwritable = set(syntax.key_close[:1] + "\n")
    if odd := [name for name in (*properties, *required) if name not in properties or set(name) & unwritable]:
        raise UnsupportedSchema(f"the argument {odd[0]!r} of '{tool.name}' cannot be written")
    sequence, rules = [], []
    for j, (name, value) in enumerate(properties.items()):
        own = f"{rule}_{j}"
        is_text, body, more = _value_rule(own, value, shared, syntax, terminals, tool)
        key_close = terminals(syntax.key_close) if is_text else _json_key_close(syntax, value, terminals)
        own_rules = [f"{own}: {terminals(syntax.key_open + name)} {key_close} {body}", *more]
        room -= sum(map(len, own_rules))
        if room < 0:
            raise UnsupportedSchema(f"the schema of '{tool.name}' is too large")
        rules += own_rules
        sequence.append(own if name in required else f"{own}?")
    arguments = " ".join(sequence)
    if syntax.empty:
        arguments = f"({arguments} | {terminals(syntax.empty)})" if arguments else terminals(syntax.empty)
    return arguments, rules


def _json_key_close(syntax: TaggedSyntax, schema: Any, terminals: GrammarTerminals) -> str:
    close = syntax.json_key_close or syntax.key_close
    if TYPE not in close:
        return terminals(close)
    types = sorted((json_types(schema) or ALL_TYPES) - {"string"})
    return f"({' | '.join(terminals(close.replace(TYPE, name)) for name in types)})"


def _value_rule(
    rule: str,
    schema: Any,
    shared: dict[str, Any],
    syntax: TaggedSyntax,
    terminals: GrammarTerminals,
    tool: Tool,
) -> tuple[bool, str, list[str]]:
    """Whether the value is text, the value with its closing tag, and further rules."""
    close = syntax.value_close
    if allows_text_or_null(schema) and not syntax.json_key_close:
        return True, *_any_text(rule, "*", syntax, terminals)
    if syntax.python and isinstance(schema, Mapping) and schema.get("type") == "boolean":
        return False, f'("true" | "True" | "false" | "False") {terminals(close)}', []
    if not allows_only_text(schema):
        # `true` as a schema means an empty one. Where the schema allows more than strings, those are quoted.
        whole = {**shared, **schema} if isinstance(schema, Mapping) else shared
        return False, f"{schema_rule(whole, tool)} {terminals(close)}", []
    if unknown := sorted(schema.keys() - _STRING_KEYWORDS):
        raise UnsupportedSchema(f"a string with {unknown[0]!r} is not supported")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            raise UnsupportedSchema("a string without possible values")
        return True, f"({' | '.join(map(quoted, texts))}) {terminals(close)}", []
    count = repeated(schema.get("minLength"), schema.get("maxLength"))
    return True, *_any_text(rule, count, syntax, terminals)


def _any_text(
    rule: str, count: str, syntax: TaggedSyntax, terminals: GrammarTerminals
) -> tuple[str, list[str]]:
    """Text with its closing tag, and further rules. count: the number of characters, as in a regular
    expression.
    """
    close = syntax.value_close
    if syntax.cdata:
        plain = f"/[^<&\\n]{count}/ {terminals(close)}"
        section = f"{quoted(_CDATA)} {rule}_cdata {terminals(close)}"
        lazy = f"{rule}_cdata[lazy]: /(?s:.){count}/ {quoted(_CDATA_END)}"
        return f"({plain} | {section})", [lazy]
    text = ANY_TEXT if count == "*" else f"/(?s:.){count}/"
    if any(token in close for token in terminals.tokens):  # which no text contains
        return f"{text} {terminals(close.lstrip())}", []
    return f"{rule}_text", [f"{rule}_text[lazy]: {text} {quoted(close)}"]
