"""vLLM's and SGLang's structural tags as a grammar: text whose parts between tags match a constraint."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from engine.types import Constraint
from server.api.common.requests.parser import Fields, json_schema
from server.chat.request import RequestedConstraint
from server.errors import missing, unsupported, wrong
from server.generation.request_context import RequestContext

MAX_DEPTH = 32
MAX_PARTS = 4096  # formats, and pairs of a trigger and a tag
MAX_TEXT = 1 << 19  # characters of tags behind triggers
_ANY = "TEXT: /(?s:.*)/"
_OPEN = "free text in it has no end; put it into a tag that ends it"


def structural_tag(value: Any, at: str, context: RequestContext) -> RequestedConstraint:
    """The grammar of `{structures, triggers}` (the older form) or `{format}` in the field `at`."""
    fields = Fields(value, at, context)
    fields.one_of("type", ("structural_tag",), "structural_tag")
    grammar = _Grammar()
    if fields.get("format") is not None:
        fields.only(frozenset({"type", "format"}))
        start = grammar.format(Fields(fields.get("format"), fields.at("format"), context)).text
    else:
        fields.only(frozenset({"type", "structures", "triggers"}))
        tags = []
        for tag in fields.objects("structures"):
            grammar.count(1, fields.at("structures"))
            tags.append(_Tag(tag, tag.text("begin"), tag.text("end")))
        bodies = [grammar.schema(tag.fields, "schema") for tag in tags]
        start = f"{grammar.triggered(fields, tags, bodies)}* TEXT"
    return RequestedConstraint(Constraint("lark", grammar.text(start)), at)


class _Tag(NamedTuple):
    fields: Fields
    begin: str
    end: str


class _Part(NamedTuple):
    """What represents a format in other rules. open: it may end with text that only the end of the answer
    ends.
    """

    text: str
    open: bool = False


class _Grammar:
    """Collects the rules of one grammar."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = self._parts_read = self._size = 0

    def count(self, n: int, path: str) -> None:
        """Raises ApiError for a grammar that would take long to write, or much memory."""
        self._parts_read += n
        if self._parts_read > MAX_PARTS:
            raise wrong(path, f"more than {MAX_PARTS} formats, tags and triggers are not supported")

    def _grow(self, text: str, path: str) -> str:
        self._size += len(text)
        if self._size > MAX_TEXT:
            raise wrong(path, f"more than {MAX_TEXT} characters of a grammar are not supported")
        return text

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._lines, _ANY])

    def _rule(self, text: str, attribute: str = "") -> str:
        name = f"part_{len(self._lines)}"
        self._lines.append(f"{name}{attribute}: {text}")
        return name

    def schema(self, fields: Fields, name: str) -> str:
        value = fields.get(name)
        if value is None:
            raise missing(fields.at(name))
        constraint = json_schema(value, fields.at(name))
        return self._rule(f"%json {constraint.text}")

    def triggered(self, fields: Fields, tags: list[_Tag], bodies: list[str]) -> str:
        """Text up to a trigger, then the rest of a tag that begins with it."""
        triggers = list(dict.fromkeys(fields.texts("triggers")))
        if "" in triggers:
            raise wrong(fields.at("triggers"), "must not be empty")
        if not tags:
            raise wrong(fields.path, "must have at least one tag")
        self.count(len(triggers) * len(tags), fields.at("triggers"))
        if len(triggers) > 1:  # what stands several times is a rule, or nested tags would double their text
            bodies = [self._rule(body) if body.startswith("(") else body for body in bodies]
        options = []
        for trigger in triggers:
            mine = [pair for pair in zip(tags, bodies, strict=True) if pair[0].begin.startswith(trigger)]
            if not mine:
                raise wrong(fields.at("triggers"), f"no tag begins with {trigger[:64]!r}")
            rests = [
                self._grow(f"{_quoted(tag.begin[len(trigger) :])} {body} {_quoted(tag.end)}", tag.fields.path)
                for tag, body in mine
            ]
            until = self._rule(f"TEXT {_quoted(trigger)}", "[lazy]")
            options.append(f"{until} ({' | '.join(rests)})")
        for tag in tags:
            if not any(tag.begin.startswith(trigger) for trigger in triggers):
                raise wrong(tag.fields.at("begin"), "begins with none of the triggers")
        return f"({' | '.join(options)})"

    def format(self, fields: Fields) -> _Part:
        self.count(1, fields.path)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise wrong(fields.path, f"is nested deeper than {MAX_DEPTH}")
        part = self._format(fields)
        self._depth -= 1
        return part

    def _format(self, fields: Fields) -> _Part:
        kind = fields.text("type")
        match kind:
            case "const_string":
                fields.only(frozenset({"type", "value"}))
                return _Part(_quoted(fields.text("value")))
            case "json_schema":
                fields.only(frozenset({"type", "json_schema", "style"}))
                fields.one_of("style", ("json",), "json")
                return _Part(self.schema(fields, "json_schema"))
            case "any_text":
                fields.only(frozenset({"type"}))
                return _Part("TEXT", open=True)
            case "sequence" | "or":
                return self._elements(fields, kind)
            case "tag":
                return self._tag(fields)
            case "triggered_tags":
                return self._triggered_tags(fields)
            case "tags_with_separator":
                fields.only(frozenset({"type", "tags", "separator", "at_least_one", "stop_after_first"}))
                tags = [self._tag(tag) for tag in self._tags(fields)]
                # It stands twice: as a rule, or nested ones would double their text.
                tag = self._rule(f"({' | '.join(part.text for part in tags)})")
                more = (
                    ""
                    if fields.flag("stop_after_first")
                    else f" ({_quoted(fields.text('separator'))} {tag})*"
                )
                text = f"({tag}{more})" + ("" if fields.flag("at_least_one") else "?")
                return _Part(text, any(part.open for part in tags))
        raise unsupported(
            fields.at("type"), f"a format of type {kind[:64]!r} is not supported by this server"
        )

    def _elements(self, fields: Fields, kind: str) -> _Part:
        fields.only(frozenset({"type", "elements"}))
        parts = [self.format(part) for part in fields.objects("elements")]
        if not parts:
            raise missing(fields.at("elements"))
        if kind == "sequence":
            refused = any(part.open for part in parts[:-1])
        else:
            refused = any(part.text == "TEXT" for part in parts)  # beside it no other would mean anything
        if refused:
            raise unsupported(fields.at("elements"), _OPEN)
        text = (" " if kind == "sequence" else " | ").join(part.text for part in parts)
        return _Part(f"({text})", any(part.open for part in parts))

    def _tags(self, fields: Fields) -> list[Fields]:
        tags = list(fields.objects("tags"))
        if not tags:
            raise missing(fields.at("tags"))
        return tags

    def _tag(self, fields: Fields) -> _Part:
        begin, body, end = self._parts(fields)
        return _Part(f"({_quoted(begin)} {body.text} {_quoted(end)})", body.open)

    def _parts(self, fields: Fields) -> tuple[str, _Part, str]:
        """How a tag begins, its content, and how it ends unless the content determines that itself."""
        fields.one_of("type", ("tag",), "tag")
        fields.only(frozenset({"type", "begin", "content", "end"}))
        begin, end = fields.text("begin"), fields.text("end")
        body = self.format(Fields(fields.get("content"), fields.at("content"), fields.context))
        if body.text == "TEXT" and end:
            return begin, _Part(self._rule(f"TEXT {_quoted(end)}", "[lazy]")), ""
        if body.open and end:
            raise unsupported(fields.at("content"), _OPEN)
        return begin, body, end

    def _triggered_tags(self, fields: Fields) -> _Part:
        fields.only(frozenset({"type", "triggers", "tags", "at_least_one", "stop_after_first"}))
        tags, bodies = [], []
        for tag in self._tags(fields):
            begin, body, end = self._parts(tag)
            tags.append(_Tag(tag, begin, end))
            bodies.append(body)
        one = self.triggered(fields, tags, [body.text for body in bodies])
        at_least_one = fields.flag("at_least_one")
        if not fields.flag("stop_after_first"):
            return _Part(f"({one}{'+' if at_least_one else '*'} TEXT)", open=True)
        if not at_least_one:
            return _Part(f"({one} | TEXT)", open=True)
        return _Part(one, any(body.open for body in bodies))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
