"""JSON schemas before llguidance sees them: bounds, and what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.constraint.gbnf.lark import with_checked_schemas
from engine.constraint.json_schema import rule
from engine.errors import ConfigError


def body(schema: Any) -> dict[str, Any]:
    text = rule(schema).text
    assert text.startswith("%json ")
    found: dict[str, Any] = json.loads(text.removeprefix("%json "))
    found.pop("x-guidance")
    return found


def test_unknown_formats_are_annotations() -> None:
    schema = {
        "properties": {"format": {"type": "string", "format": "iban"}, "day": {"format": "date"}},
        "items": [{"format": "x"}],
        "const": {"format": "x"},
        "enum": [{"format": "x"}],
        "default": {"format": "x"},
    }
    assert rule(schema).ignored == ["format 'iban'", "format 'x'"]
    found = body(schema)
    assert found["properties"] == {"format": {"type": "string"}, "day": {"format": "date"}}
    assert found["items"] == [{}]
    assert found["const"] == found["default"] == found["enum"][0] == {"format": "x"}


def test_unknown_dialects_do_not_matter() -> None:
    assert rule({"$schema": "my own"}).ignored == ["$schema"]
    assert body({"$schema": "my own"}) == {}
    known = {"$schema": "http://json-schema.org/draft-07/schema#"}
    assert body(known) == known


def test_white_space_is_bounded_unless_the_schema_says_more() -> None:
    def options(schema: dict[str, Any]) -> Any:
        return json.loads(rule(schema).text.removeprefix("%json "))["x-guidance"]

    assert options({}) == {"whitespace_pattern": r" |\n[ \t]{0,20}"}
    assert options({"x-guidance": {"whitespace_flexible": False}}) == {"whitespace_flexible": False}
    assert options({"x-guidance": {"lenient": True}})["lenient"] is True


def test_what_is_given_stays_as_it_is() -> None:
    schema = {"properties": {"a": {"format": "x"}}, "x-guidance": {"lenient": True}}
    before = json.dumps(schema)
    rule(schema)
    assert json.dumps(schema) == before


@pytest.mark.parametrize(
    "multiples", [[10_000], [0.01, 5, 100_000], [97, 101], [1e-7], [2.5, 0.125], [9973, 0.001], [10**12]]
)
def test_multiples_within_bounds_stay_in_the_schema(multiples: list[float]) -> None:
    schema = {"allOf": [{"multipleOf": multiple} for multiple in multiples]}
    assert body(schema) == schema
    assert not rule(schema).ignored


def nested(n: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(n):
        schema = {"items": schema}
    return schema


REFUSED: list[tuple[Any, str]] = [
    (False, "the schema is false"),
    (None, "not null"),
    (3, "not a number"),
    ([{}], "not a list"),
    ("x", "not a string"),
    ({"x-guidance": 1}, "x-guidance must be an object"),
    (nested(61), "deeper than 60"),
    ({"properties": {f"p{i}": {} for i in range(1001)}}, "too many properties"),
    ({"anyOf": [{"properties": {f"p{i}": {} for i in range(999)}}] * 6}, "too many properties"),
    ({"enum": list(range(10_001))}, "more than 10000 values"),
    ({"multipleOf": 10_007}, "remainders"),
    ({"multipleOf": 2**20}, "remainders"),
    ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "remainders"),
    ({"multipleOf": 0}, "positive number"),
    ({"multipleOf": "1"}, "positive number"),
    ({"multipleOf": True}, "positive number"),
    ({"maximum": float("inf")}, "cannot be written as JSON"),
    ({"maximum": 10**5000}, "cannot be written as JSON"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_refusals(schema: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rule(schema)
    assert message in str(raised.value)


def test_schemas_inside_of_grammars() -> None:
    grammar = r"""start: a | b "%json {" // %json {"format": "no"}
A: /%json {"format":"no"}\//
a: %json {"format": "x",
   "const": "}"} "tail"
b: %json
{"enum": ["%json {"]}
# %json {
"""
    found = with_checked_schemas(grammar)
    assert found.ignored == ["format 'x'"]
    assert found.text.count("x-guidance") == 2
    assert '"}"' in found.text
    assert found.text.count('"format": "no"') == 1
    assert '"tail"' in found.text
    plain = 'start: "a" %json {"unfinished'
    assert with_checked_schemas(plain).text == plain
    with pytest.raises(ConfigError, match="remainders"):
        with_checked_schemas('start: %json {"multipleOf": 99999989}')
