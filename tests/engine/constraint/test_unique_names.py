"""No object has a name twice, whatever a schema lets be written."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.constraint import unique_names as subject
from engine.constraint.compiler import ConstraintCompiler, GrammarVocabulary
from engine.constraint.unique_names import TokenIndex, UniqueNames
from engine.types import Constraint
from support.references.json_walk import END, TOKENS, allowed, compiler, matcher_of, parsed, random_text

MAPS: list[dict[str, Any]] = [
    {"type": "object"},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
    {
        "type": "object",
        "patternProperties": {"^k[0-9]+$": {}},
        "additionalProperties": False,
        "minProperties": 4,
    },
    {
        "type": "array",
        "items": {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 2},
    },
    # The terminal of its names is that of its strings.
    {
        "type": "object",
        "properties": {"s": {"type": "string"}, "o": {"type": "object"}},
        "required": ["s", "o"],
    },
    # Names of which only a few begin alike: 14 of one letter, then more than can be listed.
    {
        "type": "object",
        "patternProperties": {"^([a-e]|[f-z]{2}[0-3]|é[0-9])$": {"type": "boolean"}},
        "additionalProperties": False,
        "minProperties": 9,
    },
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "propertyNames": {"maxLength": 1},
        "additionalProperties": {"type": "integer"},
        "minProperties": 5,
    },
]


@pytest.mark.parametrize("schema", MAPS, ids=json.dumps)
def test_random_text_never_repeats_a_name(schema: dict[str, Any]) -> None:
    matcher = matcher_of(schema)
    ended = 0
    for seed in range(25):
        text = random_text(matcher, seed, 500)
        if text is not None:
            ended += 1
            Draft202012Validator(schema).validate(json.loads(json.dumps(parsed(text), default=float)))
    assert ended > 3


def names_allowed_behind(text: str, schema: Any = True) -> set[bytes]:
    matcher = matcher_of(schema)
    for byte in text.encode():
        matcher.commit(byte)
    return {TOKENS[token] for token in allowed(matcher) if token != END}


def test_tokens_that_would_complete_a_duplicate_name_are_masked() -> None:
    assert b'"' not in names_allowed_behind('{"ab": 1, "ab')
    assert {b'"', b"x"} <= names_allowed_behind('{"ab": 1, "a')
    assert b'"' in names_allowed_behind('{"ab": {"ab')  # another object
    assert b'"' in names_allowed_behind('[{"ab": 1}, {"ab')
    assert b'"' in names_allowed_behind('{"ab": "x", "ac": "ab')  # a value
    assert b'"' not in names_allowed_behind('{"ab": {"x": [1, {"ab": 2}]}, "ab')
    assert b'"' not in names_allowed_behind('{"a\\"b": "}", "a\\"b')


def test_token_that_begins_and_ends_a_duplicate_name_is_masked() -> None:
    assert {b'""', b'"":'} <= names_allowed_behind('{"a": 1, ')
    assert not {b'""', b'"":'} & names_allowed_behind('{"": 1, ')
    assert b',""' not in names_allowed_behind('{"": 1')
    assert b',""' in names_allowed_behind('["", 1')
    assert b'": ' not in names_allowed_behind('{"": 1, "')


def test_used_up_beginnings_are_masked() -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^(a[01]|[b-z][0-9])$": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert b"a" in names_allowed_behind('{"a0": 1, "', schema)
    assert b"a" not in names_allowed_behind('{"a0": 1, "a1": 1, "', schema)
    assert b"b" in names_allowed_behind('{"a0": 1, "a1": 1, "', schema)


def test_names_are_unique_inside_other_grammars() -> None:
    matcher = compiler().compile(Constraint("lark", 'start: /[a-z{" ]*:/ %json {"type": "object"} "!"'))
    for byte in b'say {a so:{"a": 1, "a':
        matcher.commit(byte)
    assert ord('"') not in allowed(matcher)
    assert not matcher.accepts(ord('"'))
    assert matcher.copy().accepts(ord("b"))


def test_special_token_ends_the_json() -> None:
    tokens = [*TOKENS, b"<call>", b"<end>"]
    call, end = len(TOKENS), len(TOKENS) + 1
    own = ConstraintCompiler(GrammarVocabulary(tokens, [call, end], [end], end + 1))
    matcher = own.compile(Constraint("lark", f'start: /[a-z{{" ]*/ <[{call}]> %json {{"type": "object"}}'))
    for byte in b'use {"':
        matcher.commit(byte)
    assert matcher.accepts(call)
    matcher.commit(call)
    for byte in b'{"a": 1, "a':
        matcher.commit(byte)
    assert not matcher.accepts(ord('"'))


def test_text_that_only_looks_like_json_is_not_constrained() -> None:
    names = UniqueNames(TokenIndex(TOKENS, []))
    mask = array("I", [0xFFFFFFFF] * compiler().n_words)
    free = ['{"a": 1} "a": {b} {"a": x, "a', '"{"a', '}]{"b', '{"a": 1, "b\n', '{"a" "a', '{"a": "x" "a']
    held = ['{"a": 1, "a', 'use {"\n<call>\n{"a": 1, "a', 'use {" f{"a": 1, "a', 'use {" [{ "a": 1, "a']
    held += ['use {"a": " f{"a": 1, "a', 'use {"{"{"{"a": {"b": "{"}, "a']
    for text in free + held:
        other = names.copy()
        other.commit(text.encode())
        mine = array("I", mask)
        other.forbid(mine)
        assert (mine == mask) == (text in free), text


def test_only_tokens_that_repeat_a_name_are_forbidden() -> None:
    """Held against a scanner that is asked about every token by itself."""
    names = UniqueNames(TokenIndex(TOKENS, []))
    text = '{"ab": 1, "a": {"b": [], "": {}, "ab\\"": 2, "abc": 0, "": 1}, "abc": [{"x": 1}], "abd": "ab"}'
    for byte in text.encode():
        mask = array("I", [0xFFFFFFFF] * compiler().n_words)
        names.forbid(mask)
        for token, data in enumerate(TOKENS):
            if names.name_length is not None or b'"' not in data:
                allowed_ = bool(mask[token // 32] >> token % 32 & 1)
                assert allowed_ == names.allows(data), (text, byte, data)
        names.commit(bytes([byte]))


def lines_of(work: Callable[[], None]) -> int:
    """How many lines of the module run, each time that they do."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename == subject.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def masks_along(pieces: list[str]) -> Callable[[], None]:
    """Goes along a text and makes a mask behind each of its pieces."""
    names = UniqueNames(TokenIndex(TOKENS, []))
    mask = array("I", bytes(4 * compiler().n_words))

    def work() -> None:
        for piece in pieces:
            names.commit(piece.encode())
            mask[:] = array("I", [0xFFFFFFFF] * len(mask))
            names.forbid(mask)
        assert not names.repeated

    return work


@pytest.mark.parametrize(
    "pieces",
    [
        lambda n: ["{", *(piece for i in range(n) for piece in ('"', f"key{i:04}", '": ', "1", ", "))],
        lambda n: ["{", '"', *("x" for _ in range(n)), '": 1, "', *("x" for _ in range(n)), 'y"'],
        lambda n: [*('{"a": ' for _ in range(n)), "1", *("}" for _ in range(n))],
        lambda n: ["[" for _ in range(n)],
    ],
    ids=["many names", "long names", "deep objects", "deep arrays"],
)
def test_work_grows_linearly_with_the_text(pieces: Callable[[int], list[str]]) -> None:
    few, many = (lines_of(masks_along(pieces(n))) for n in (100, 800))
    assert many / few < 12  # eight times the text; the logarithm of the number of names is part of it
