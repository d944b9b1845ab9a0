"""Helpers for grammars in llguidance's dialect of Lark (see `engine.constraint.compiler`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engine.constraint.compiler import GrammarVocabulary, grammar
from engine.constraint.json_schema import closed
from engine.exact_json import dumps
from engine.types import Constraint

# One line, with the spaces that models know from training. Flexible white space could go on forever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Kinds of constraints that can be part of a larger grammar.
KINDS = frozenset(("json_object", "json_schema", "regex", "choice"))
_NO_TOKENS = GrammarVocabulary([], [], [], 0)


class GrammarTerminals:
    """Writes texts as terminals of a grammar; a control token matches by its id only, not by its text.

    tokens: markers that are control tokens, with their ids.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens
        markers = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, markers)) if markers else r"(?!)")

    def __call__(self, text: str) -> str:
        """A sequence of literals and tokens."""
        terminals, position = [], 0
        for match in self._pattern.finditer(text):
            terminals += [quoted(text[position : match.start()]), f"<[{self.tokens[match[0]]}]>"]
            position = match.end()
        terminals.append(quoted(text[position:]))
        return " ".join(filter(None, terminals))

    def first_token(self, text: str) -> str | None:
        """The first control token in a text."""
        match = self._pattern.search(text)
        return None if match is None else match[0]


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def repeated(shortest: int | None, longest: int | None) -> str:
    """The repetition suffix of an item, as in a regular expression."""
    if shortest is None and longest is None:
        return "*"
    return f"{{{shortest or 0},{'' if longest is None else longest}}}"


def strict_json_rule(schema: Mapping[str, Any]) -> str:
    """A rule that matches a JSON schema without properties that it does not list. Raises ConfigError.

    Other errors in the schema show when the grammar is compiled, in the resource-limited process.
    """
    options = schema.get("x-guidance", {})
    if isinstance(options, dict):  # otherwise refused then
        schema = closed({**schema, "x-guidance": {**options, **_SPACING}})
    return f"%json {dumps(schema)}"


def answer_rule(constraint: Constraint) -> str:
    """A constraint of one of the KINDS, known to compile, as one alternative of a larger grammar."""
    if constraint.kind in ("json_object", "json_schema"):
        return "%json " + (constraint.text or '{"type": "object"}')
    return f"({grammar(constraint, _NO_TOKENS).text.removeprefix('start: ').strip()})"


def object_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
