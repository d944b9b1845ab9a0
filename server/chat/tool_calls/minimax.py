"""MiniMax M2: `<minimax:tool_call><invoke name="…"><parameter name="…">…</invoke>…`; M3 nests tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.exact_json import dumps
from server.chat.request import Tool
from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted, repeated
from server.chat.tool_calls.schema_rules import MAX_DEPTH, SchemaRules
from server.chat.tool_calls.schema_types import allows_only_text, json_types
from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat, value_as_json
from server.chat.tool_calls.tool_call_format import CallFrame, ToolCallFormat, ToolOptions

_NS = "]<]minimax[>["
_END, _TAIL = "\0end", "\0tail"  # in no text of a grammar, which escapes NUL


class MiniMaxM2Format(TaggedToolCallFormat):
    name = "minimax-m2"
    template_has = ("<minimax:tool_call>",)
    syntax = TaggedSyntax(
        CallFrame(
            "<minimax:tool_call>",
            '\n<invoke name="',
            '</invoke>\n<invoke name="',
            "</invoke>\n</minimax:tool_call>",
        ),
        '">\n',
        '<parameter name="',
        '">',
        "</parameter>\n",
    )


class MiniMaxM3Parser(StreamingParser):
    """Nested values are nested tags, so the schema determines the type of a value."""

    def __init__(self, tools: Mapping[str, Tool], *args: Any) -> None:
        self.tools = tools
        self.openers, self.tag = MarkerSearch([f"{_NS}<tool_call>"]), MarkerSearch([_NS])
        super().__init__(tools, *args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.calls())

    def calls(self) -> Parsing[None]:
        if not (yield from self.accept(f'{_NS}<invoke name="')):
            raise UnexpectedText
        yield from self.call()
        while (yield from self.accept(f'{_NS}<invoke name="')):
            yield from self.call()
        yield from self.accept(f"{_NS}</tool_call>")

    def call(self) -> Parsing[None]:
        name = yield from self.short_text('"')
        yield from self.accept(">")
        self.begin_call(name)
        if (yield from self.after_space()) != _NS[0]:
            raise UnexpectedText
        self.unread(_NS[0])
        yield from self.until(self.tag, lambda _: None)
        yield from self.pairs(self.tools[name].schema, "/invoke", 0)

    def tag_name(self) -> Parsing[str]:
        """Read the name of a tag, after its marker."""
        if (yield from self.next()) != "<":
            raise UnexpectedText
        return (yield from self.short_text(">")).strip()

    def pairs(self, schema: Any, end: str, depth: int, first: str = "") -> Parsing[None]:
        """Read an object after the marker of its first tag, up to the tag `end`.

        first: the name of that tag.
        """
        properties = _part(schema, "properties")
        self.emit_arguments("{")
        comma = ""
        while (name := first or (yield from self.tag_name())) != end:
            first = ""
            self.emit_arguments(f"{comma}{json.dumps(name, ensure_ascii=False)}: ")
            comma = ", "
            yield from self.value_of(_part(properties, name), f"/{name}", depth + 1)
            yield from self.until(self.tag, lambda _: None)
        self.emit_arguments("}")

    def items(self, schema: Any, end: str, depth: int, first: str = "") -> Parsing[None]:
        self.emit_arguments("[")
        comma = ""
        while (name := first or (yield from self.tag_name())) != end:
            first = ""
            self.emit_arguments(comma)
            comma = ", "
            yield from self.value_of(_part(schema, "items"), f"/{name}", depth + 1)
            yield from self.until(self.tag, lambda _: None)
        self.emit_arguments("]")

    def value_of(self, schema: Any, end: str, depth: int) -> Parsing[None]:
        """Read the value after its opening tag, and the tag `end`."""
        if depth > MAX_DEPTH:
            raise UnexpectedText
        if allows_only_text(schema):
            yield from self.text_argument(self.tag)
            yield from self.tag_name()
            return
        text: list[str] = []
        yield from self.until(self.tag, text.append)
        name = yield from self.tag_name()
        types = json_types(schema) or frozenset()
        if name != end:
            read = self.items if name == "item" and "object" not in types else self.pairs
            yield from read(schema, end, depth, name)
        elif not "".join(text).strip() and types & {"object", "array"}:
            self.emit_arguments("[]" if "array" in types else "{}")
        else:
            self.emit_arguments(value_as_json("".join(text), schema))


def _part(schema: Any, key: str) -> Any:
    return schema.get(key) if isinstance(schema, Mapping) else None


class MiniMaxM3Rules(SchemaRules):
    """The expression of a value has _END in place of its closing tag, or _TAIL in place of that tag without
    its marker.

    The lexer takes the longest possible terminal, so the marker alone cannot be one.
    """

    def pair(self, name: str, value: str) -> str:
        if not name or set(name) & set("<>/\n"):
            raise self.unsupported(f"has the argument {name!r}, which cannot be written")
        return self._tagged(name, value)

    def _tagged(self, name: str, value: str) -> str:
        end, tail = self.terminals(f"{_NS}</{name}>"), quoted(f"</{name}>")
        return f"{self.key(name)} {value.replace(_END, end).replace(_TAIL, tail)}"

    def key(self, name: str) -> str:
        return self.terminals(f"{_NS}<{name}>")

    def reference(self, schema: Mapping[str, Any]) -> str:
        """Write the referenced schema in place: a value's closing tag is part of its rule, so it cannot be
        shared.
        """
        return self.value(self.resolved(schema["$ref"]))

    def text(self, shortest: int | None, longest: int | None) -> str:
        return f"{self.text_before(_NS, shortest, longest)} {_TAIL}"

    def scalar(self, schema: Mapping[str, Any]) -> str:
        return f"{super().scalar(schema)} {_END}"

    def literal(self, value: Any) -> str:
        if value is None or isinstance(value, dict | list):
            raise self.unsupported("has a value that cannot be written")
        return f"{quoted(value if isinstance(value, str) else dumps(value))} {_END}"

    def pairs(self, pairs: Sequence[tuple[str, bool]]) -> str:
        return " ".join(pair if required else f"({pair})?" for pair, required in pairs)

    def object(self, pairs: Sequence[tuple[str, bool]]) -> str:
        return f"{self.pairs(pairs)} {_END}"

    def items(self, item: str, shortest: int, longest: int | None) -> str:
        one = f"({self._tagged('item', item)})"
        return f"{one}{repeated(shortest, longest)} {_END}"

    def any_object(self) -> str:
        return self.anything()

    def anything(self) -> str:
        """Text or tags of any names; a grammar cannot require that the tags match."""
        name = f"{self.prefix}_any"
        if not self._has_any:
            self._has_any = True
            nested = rf"/<[^\/<>\n][^<>\n]*>/ {name} /<\/[^<>\n]+>/ {self.terminals(_NS)}"
            self.rules.append(f"{name}: {self.text_before(_NS, None, None)} ({nested})*")
        return f"{name} {_TAIL}"


class MiniMaxM3Format(ToolCallFormat):
    """M3, whose tags begin with a token of their own."""

    name = "minimax-m3"
    template_has = (_NS,)
    markers = (_NS,)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MiniMaxM3Parser({tool.name: tool for tool in options.tools}, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        begin = f'\n{_NS}<invoke name="'
        frame = CallFrame(f"{_NS}<tool_call>", begin, begin, f"\n{_NS}</tool_call>")
        rules: list[str] = []
        for i, tool in enumerate(options.tools):
            arguments = MiniMaxM3Rules(f"arguments_{i}", tool, terminals)
            name, end = terminals(f'{tool.name}">'), terminals(f"{_NS}</invoke>")
            rules += [f"call_{i}: {name} {arguments.arguments()} {end}", *arguments.rules]
        return frame.grammar(rules, options, terminals)

    def example(self) -> str:
        argument = f"{_NS}<argument name>value{_NS}</argument name>"
        call = f'{_NS}<invoke name="tool name">{argument}{_NS}</invoke>'
        return f"{_NS}<tool_call>\n{call}\n{_NS}</tool_call>"
