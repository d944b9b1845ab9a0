"""Texts that a constraint allows, byte by byte, without a model."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from functools import cache
from typing import Any

from engine.constraint.compiler import ConstraintCompiler, ConstraintMatcher, GrammarVocabulary
from engine.constraint.json_schema import closed, rule
from engine.errors import ConfigError
from engine.exact_json import dumps
from engine.types import Constraint
from support.references import constraint_walk

# Single bytes, and pieces of JSON as models have them, which end one part and begin the next.
PIECES = (
    '","',
    '":"',
    '": ',
    '": "',
    '", "',
    '{"',
    '"}',
    '"]',
    "],",
    "},",
    '""',
    '"":',
    ',""',
    "[]",
    "{}",
    ", ",
)
TOKENS = (
    [bytes([i]) for i in range(255)] + [b""] + [piece.encode() for piece in PIECES] + [b"\n  ", b',\n  "']
)
END = len(TOKENS)
_ENDING = frozenset(b'"}],:01')


@cache
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(GrammarVocabulary([*TOKENS, b"<end>"], [END], [END], END + 1))


def matcher_of(schema: Any, *, close: bool = True) -> ConstraintMatcher:
    """Raises ConfigError. close: as the server reads the schemas of requests."""
    return compiler().compile(Constraint("json_schema", dumps(closed(schema) if close else schema)))


def allowed(matcher: ConstraintMatcher) -> list[int]:
    return sorted(constraint_walk.allowed(matcher, compiler().n_words))


def accepts(matcher: ConstraintMatcher, text: str) -> bool:
    """Whether a whole text matches, byte by byte."""
    matcher = matcher.copy()
    for byte in text.encode():
        if byte not in allowed(matcher):
            return False
        matcher.commit(byte)
    return matcher.may_stop


def takes(schema: Any, text: str, *, close: bool = False) -> bool:
    """Whether a whole text matches a schema."""
    return accepts(matcher_of(schema, close=close), text)


def refusal(schema: Any) -> str:
    """The error of a schema that must be refused, which is short and in one line."""
    try:
        rule(schema)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 400
        return message
    raise AssertionError(f"not refused: {schema}")


def accepts_value(matcher: ConstraintMatcher, value: Any) -> bool:
    """Whether a value matches as `json.dumps` writes it, in one line or in many."""
    one_line, many = (json.dumps(value, indent=n, ensure_ascii=False) for n in (None, 2))
    return accepts(matcher, one_line) and accepts(matcher, many)


def random_text(matcher: ConstraintMatcher, seed: int, n: int = 300) -> str | None:
    """A text that matches, chosen at random; None if it did not come to an end in `n` tokens.

    AssertionError if no token may come although the text is not complete.
    """
    matcher, chance, text = matcher.copy(), random.Random(seed), b""
    for i in range(n):
        choice = [token for token in allowed(matcher) if token != END]
        if matcher.may_stop and (not choice or chance.random() < 0.5):
            return text.decode()
        assert choice, f"nothing may follow {text!r}"
        if i > n // 3 or chance.random() < 0.6:
            choice = [token for token in choice if TOKENS[token][0] in _ENDING] or choice
        token = chance.choice(choice)
        matcher.commit(token)
        text += TOKENS[token]
    return None


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), names
    return dict(pairs)


def parsed(text: str) -> Any:
    """A JSON text; AssertionError if an object has a name twice."""
    return json.loads(text, object_pairs_hook=no_duplicates, parse_float=Decimal)
