"""Calls whose arguments are tags: `<parameter=city>Paris</parameter>`. Texts stand there as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.chat.text_reader import NotThis, Openers, Reader, Reading
from server.chat.tool_calls.family import (
    ANY_TEXT,
    CannotHold,
    Family,
    Offer,
    held_to,
    lark,
    one_of,
    start_rules,
)
from server.chat.tool_calls.grammar import Words, quoted
from server.chat.tool_calls.tool import Tool

MAX_NAME = 256
# What a text's schema may say for the grammar to hold it to that.
_OF_TEXT = {"type", "description", "title", "default", "examples", "enum", "const", "minLength", "maxLength"}
_OF_OBJECT = {
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
class TaggedForm:
    """`opener` `function` name `>` (`parameter` name `>` value `close`)* `end` `closer`, each on its line."""

    opener: str
    closer: str
    function: str = "<function="
    parameter: str = "<parameter="
    close: str = "</parameter>"
    end: str = "</function>"


class TaggedReader(Reader):
    def __init__(self, form: TaggedForm, tools: Mapping[str, Tool], *args: Any) -> None:
        self.form, self.tools = form, tools
        self.openers = Openers([form.opener])
        self.close = Openers(["\n" + form.close, form.close])
        super().__init__(tools, *args)

    def read(self) -> Reading[None]:
        while True:
            opener = yield from self.until(self.openers, self.say)
            yield from self.attempt(opener, self.call())

    def call(self) -> Reading[None]:
        form = self.form
        if not (yield from self.word(form.function)):
            raise NotThis
        name = yield from self.name()
        self.announce(name)
        properties = self.tools[name].schema.get("properties")
        before = "{"
        while (yield from self.word(form.parameter)):
            key = yield from self.name()
            self.argue(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            yield from self.argument(properties.get(key) if isinstance(properties, dict) else None)
        self.argue("{}" if before == "{" else "}")
        yield from self.word(form.end)
        yield from self.word(form.closer)

    def name(self) -> Reading[str]:
        """Up to the `>`."""
        name = ""
        while True:
            character = yield from self.next()
            if character == ">":
                return name.strip()
            name += character
            if len(name) > MAX_NAME:
                raise NotThis

    def argument(self, schema: Any) -> Reading[None]:
        """The value, between line breaks that are not a part of it. Texts are told as they come."""
        character = yield from self.next()
        if character != "\n":
            self.unread(character)
        if _is_text(schema):
            self.argue('"')
            yield from self.until(
                self.close, lambda text: self.argue(json.dumps(text, ensure_ascii=False)[1:-1])
            )
            self.argue('"')
            return
        value: list[str] = []
        yield from self.until(self.close, value.append)
        self.argue(_as_json("".join(value), schema))


def _is_text(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") in ("string", ["string"])


def _as_json(text: str, schema: Any) -> str:
    """What a value that may be other than a text stands for."""
    stripped = text.strip()
    # Templates show models `True` and `None`, as Python writes them.
    python = {"True": "true", "False": "false", "None": "null"}
    stripped = python.get(stripped, stripped)
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return stripped


class TaggedFamily(Family):
    """A family whose calls are tags."""

    form: TaggedForm

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.form.opener, self.form.closer)

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return TaggedReader(self.form, {tool.name: tool for tool in offer.tools}, new_id, offer.limit)

    def grammar(self, offer: Offer, words: Words) -> str:
        form = self.form
        rules = [one_of("call", offer)]
        for i, tool in enumerate(offer.tools):
            arguments, more = _argument_rules(f"argument_{i}", tool, form, words)
            rules.append(
                f"call_{i}: {words(form.function + tool.name + '>')} {arguments} {words(chr(10) + form.end)}"
            )
            rules += more
        end = words("\n" + form.closer)
        again = f"({words(chr(10) + form.opener + chr(10))} call {end})*" if offer.parallel else ""
        rules.append(f"calls: {words(chr(10))} call {end} {again}")
        return lark([*start_rules(offer, words, form.opener, "calls"), *rules])

    def example(self) -> str:
        form = self.form
        argument = f"{form.parameter}argument name>\nvalue\n{form.close}"
        return f"{form.opener}\n{form.function}tool name>\n{argument}\n{form.end}\n{form.closer}"


def _argument_rules(rule: str, tool: Tool, form: TaggedForm, words: Words) -> tuple[str, list[str]]:
    """The arguments of a call in the order of the schema, those that are not required optional."""
    schema = tool.schema
    if unknown := sorted(schema.keys() - _OF_OBJECT):
        raise CannotHold(f"the schema of '{tool.name}' has {unknown[0]!r} at its top")
    shared: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required, properties = schema.get("required") or (), schema.get("properties") or {}
    if odd := [
        name for name in (*properties, *required) if name not in properties or set(name) & {">", "\n"}
    ]:
        raise CannotHold(f"the argument {odd[0]!r} of '{tool.name}' cannot be written")
    sequence, rules = [], []
    for j, (name, value) in enumerate(properties.items()):
        own = f"{rule}_{j}"
        body, more = _value_rule(own, value, shared, form, words, tool)
        rules += [f"{own}: {words(f'{chr(10)}{form.parameter}{name}>{chr(10)}')} {body}", *more]
        sequence.append(own if name in required else f"{own}?")
    return " ".join(sequence), rules


def _value_rule(
    rule: str, schema: Any, shared: dict[str, Any], form: TaggedForm, words: Words, tool: Tool
) -> tuple[str, list[str]]:
    close = "\n" + form.close
    if not _is_text(schema):
        # `true` as a schema is the same as an empty one; a text that may be here is in quotes.
        whole = {**shared, **schema} if isinstance(schema, Mapping) else shared
        return f"{held_to(whole, tool)} {words(close)}", []
    if unknown := sorted(schema.keys() - _OF_TEXT):
        raise CannotHold(f"a text with {unknown[0]!r} cannot be written without quotes")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            raise CannotHold("a text with no possible value")
        return f"({' | '.join(map(quoted, texts))}) {words(close)}", []
    least, most = schema.get("minLength"), schema.get("maxLength")
    text = (
        ANY_TEXT
        if least is None and most is None
        else f"/(?s:.){{{least or 0},{'' if most is None else most}}}/"
    )
    return f"{rule}_text", [f"{rule}_text[lazy]: {text} {quoted(close)}"]
