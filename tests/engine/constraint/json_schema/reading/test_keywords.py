"""The keywords of each type: what is left out, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from engine.constraint.json_schema import rule
from engine.errors import ConfigError
from support.references.json_walk import refusal, takes


def test_unknown_formats_are_annotations() -> None:
    schema = {
        "properties": {"format": {"type": "string", "format": "iban"}, "day": {"format": "date"}},
        "items": [{"format": "x"}],
        "default": {"format": "y"},
    }
    assert sorted(rule(schema).ignored) == ["format 'iban'", "format 'x'"]
    assert takes(schema, '{"format": "any", "day": "2024-02-29"}')
    assert not takes(schema, '{"day": "today"}')
    assert takes({"const": {"format": "x"}}, '{"format": "x"}')
    assert takes({"enum": [{"format": "x"}]}, '{"format": "x"}')


def test_unenforceable_pattern_is_left_out_only_if_lenient() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "(?<!x)$"}},
        "patternProperties": {"(?=b)": {"type": "integer"}},
        "propertyNames": {"pattern": "(?=c)"},
        "x-guidance": {"lenient": True},
    }
    assert rule(schema).ignored == ["pattern '(?<!x)$'", "pattern '(?=b)'", "pattern '(?=c)'"]
    assert takes(schema, '{"a": "x", "b": "y"}')
    with pytest.raises(ConfigError, match="unclosed group"):
        rule({"pattern": "(", "x-guidance": {"lenient": True}})


REFUSED: list[tuple[Any, str]] = [
    ({"multipleOf": 0}, "positive number"),
    ({"multipleOf": "1"}, "positive number"),
    ({"multipleOf": True}, "positive number"),
    ({"required": "a"}, "required must be a list of strings"),
    (
        {"contains": {"type": "null"}},
        "contains is not supported",
    ),
    ({"contains": {}, "minContains": 0, "maxContains": 1}, "maxContains is not supported"),
    ({"propertyNames": {"format": "email"}}, "propertyNames other than a list of names or one pattern"),
    (
        {"properties": {"a": {"items": {"type": "string", "pattern": "^(?=.*[A-Z])x(?<=x)"}}}},
        "properties.a.items: the pattern '^(?=.*[A-Z])x(?<=x)' cannot be enforced: look-behind is not",
    ),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "("}}},
        "$defs/a: the pattern '(' cannot be enforced: uncl",
    ),
    (
        {"pattern": r"\bx"},
        r"the pattern '\\bx' cannot be enforced: \b is not supported",
    ),
    ({"pattern": r"(a)\1", "maxLength": 3}, "cannot be enforced: backreferences are not supported"),
    ({"pattern": "\ud800"}, "unpaired surrogates"),
    ({"pattern": "[a--b]"}, "-- inside of a class is not supported"),
    ({"enum": ["a"], "pattern": "("}, "the pattern '(' cannot be enforced: missing )"),
    ({"allOf": [{"enum": ["a"]}, {"pattern": r"\p{L}"}]}, "cannot be enforced: bad escape"),
    (
        {"properties": {"a": {"patternProperties": {"a(?=b)": {}}}}},
        "properties.a.patternProperties: the pattern 'a(?=b)' cannot be enforced: look-around",
    ),
    (
        {"patternProperties": {"(": {}}},
        "patternProperties: the pattern '(' cannot be enforced: unclosed group",
    ),
    ({"patternProperties": {r"\p{L}": {}}}, "cannot be enforced: bad escape"),
    (
        {"patternProperties": {"a$b": {}}},
        "cannot be enforced: \\b, and ^ or $ inside of it, are not supported",
    ),
    ({"patternProperties": {"\ud800": {}}}, "unpaired surrogates"),
    (
        {"propertyNames": {"pattern": "(?!a)"}},
        "propertyNames: the pattern '(?!a)' cannot be enforced: look-around",
    ),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_read_of_an_unsupported_keyword_names_it(schema: Any, message: str) -> None:
    assert message in refusal(schema)
