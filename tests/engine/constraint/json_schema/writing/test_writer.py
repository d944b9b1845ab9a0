"""Objects and arrays: which properties and items there may be."""

from __future__ import annotations

from typing import Any

import pytest

from engine.constraint.json_schema import rule
from engine.errors import ConfigError
from support.references.json_walk import refusal, takes


def test_pattern_with_few_names_repeats_no_name() -> None:
    """Was answered with `{"k1": 1, "k1": 1}`."""
    schema = {"type": "object", "patternProperties": {"^k[12]$": {}}, "additionalProperties": False}
    assert takes({**schema, "minProperties": 2}, '{"k1": 1, "k2": 1}')
    assert not takes({**schema, "minProperties": 2}, '{"k1": 1, "k1": 1}')
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule({**schema, "minProperties": 3})


def test_pattern_beside_listed_names_applies_to_both() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^a$": {"minimum": 3}, "^x-": {"type": "string"}},
        "additionalProperties": False,
    }
    for text in ('{"a": 3}', "{}", '{"x-1": "y"}', '{"a": 12, "x-a": ""}'):
        assert takes(schema, text), text
    for text in ('{"a": 2}', '{"x-1": 1}', '{"b": 1}', '{"x-1": "y", "a": 3}'):
        assert not takes(schema, text), text


def test_number_of_properties_is_within_its_bounds() -> None:
    schema = {"type": "object", "properties": {n: {"type": "integer"} for n in "abc"}}
    closed_ = {**schema, "additionalProperties": False}
    assert takes({**closed_, "minProperties": 2}, '{"a": 1, "c": 1}')
    assert not takes({**closed_, "minProperties": 2}, '{"c": 1}')
    assert takes({**closed_, "maxProperties": 1}, '{"c": 1}')
    assert not takes({**closed_, "maxProperties": 1}, '{"a": 1, "c": 1}')
    assert takes({**schema, "minProperties": 4, "maxProperties": 4}, '{"b": 1, "x": 1, "y": 1, "z": null}')
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule({**closed_, "minProperties": 4})


def test_schema_that_mentions_other_properties_stays_open() -> None:
    for schema in (
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "required": ["b"]},
    ):
        assert takes(schema, '{"b": 1}', close=True)
    assert takes({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, '{"b": 1}', close=True)


def test_schema_with_listed_properties_is_closed() -> None:
    inner = {"properties": {"a": {"type": "integer"}}}
    for schema, good, bad in (
        (inner, '{"a": 1}', '{"b": 1}'),
        ({"items": inner}, '[{"a": 1}]', '[{"b": 1}]'),
        ({"allOf": [inner, {"properties": {"b": {}}}]}, '{"a": 1, "b": 1}', '{"c": 1}'),
        ({"allOf": [{"$ref": "#/$defs/i"}], "$defs": {"i": inner}}, '{"a": 1}', '{"b": 1}'),
        ({**inner, "anyOf": [{"properties": {"b": {}}}]}, '{"a": 1, "b": 1}', '{"c": 1}'),
        ({"type": "object", "properties": {}}, "{}", '{"a": 1}'),  # a tool without arguments
    ):
        assert takes(schema, good, close=True)
        assert not takes(schema, bad, close=True)
        assert takes(schema, bad)


REFUSED: list[tuple[Any, str]] = [
    (
        {"type": "array", "items": {"enum": list(range(101))}, "uniqueItems": True},
        "uniqueItems is supported only",
    ),
    (
        {"type": "array", "prefixItems": [{"const": 1}, {}], "uniqueItems": True},
        "uniqueItems is supported only",
    ),
    (
        {
            "type": "object",
            "patternProperties": {"^[a-z0-9]{2}$": {}},
            "additionalProperties": False,
            "minProperties": 65,
        },
        "more than 64 names that match a pattern are not supported",
    ),
    (  # `FREE_NAME_` is how terminals of unlisted names are called
        {
            "type": "object",
            "patternProperties": {"^[a-z0-9]{2}$": {"type": "string", "pattern": "^FREE_NAME_$"}},
            "additionalProperties": False,
            "minProperties": 65,
        },
        "more than 64 names that match a pattern are not supported",
    ),
    ({"type": "array", "uniqueItems": True}, "uniqueItems is supported only for items from an enum"),
    (
        {"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"type": "string"}}},
        "'^a' and 'b$' may match the same name",
    ),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_write_of_an_unsupported_schema_is_refused(schema: Any, message: str) -> None:
    assert message in refusal(schema)
