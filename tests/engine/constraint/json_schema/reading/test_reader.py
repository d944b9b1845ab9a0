"""What combines schemas."""

from __future__ import annotations

from typing import Any

import pytest

from engine.constraint.json_schema import closed, exclusive, rule
from engine.errors import ConfigError
from support.references.json_walk import refusal, takes


@pytest.mark.parametrize("dialect", ["my own", "http://json-schema.org/draft-07/schema#"])
def test_older_dialects_give_the_same_shape(dialect: str) -> None:
    assert takes({"$schema": dialect, "type": "integer"}, "3")


ONE_OF = {
    "type": "object",
    "properties": {"kind": {"type": "string"}},
    "oneOf": [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]},
    ],
}


def test_one_of_beside_properties_is_exact() -> None:
    assert takes(ONE_OF, '{"kind": "x", "a": "1"}', close=True)
    assert not takes(ONE_OF, '{"a": "1", "b": "1"}')
    with pytest.raises(ConfigError, match="branches 0 and 1 may match the same value"):
        rule({"oneOf": [{"type": "integer"}, {"type": "number"}]})
    loose = {"oneOf": [{"type": "integer"}, {"type": "number"}], "x-guidance": {"lenient": True}}
    assert any("oneOf" in what for what in rule(loose).ignored)


def test_condition_is_not_treated_as_closed() -> None:
    """An array matches `{"properties": {}}`, and 5 matches both branches."""
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule(closed({"type": "array", "not": {"properties": {}}}))
    named = {"properties": {"a": {}}, "required": ["a"]}
    with pytest.raises(ConfigError, match="branches 0 and 1 may match the same value"):
        rule(closed({"oneOf": [{"$ref": "#/$defs/n"}, {"const": 5}], "$defs": {"n": named}}))
    other = {"properties": {"b": {}}, "required": ["b"]}
    both = {"oneOf": [{"$ref": "#/$defs/n"}, other], "$defs": {"n": named}}
    assert takes(both, '{"a": 1}', close=True)
    assert takes(both, '{"b": 1}', close=True)


REFUSED: list[tuple[Any, str]] = [
    ({"properties": {"a": {"items": {"type": "nix"}}}}, "properties.a.items: type: 'nix' is not one of"),
    (
        {"type": "object", "if": {"properties": {"a": {"minimum": 5}}}, "then": {"required": ["b"]}},
        "if with a condition that is not about properties with a few known values is not supported",
    ),
    ({"not": {"pattern": "x"}}, "not but for types, constants and required properties is not supported"),
    ({"$dynamicRef": "#x"}, "$dynamicRef is not supported"),
    (
        {"anyOf": [{"$ref": "#"}, {"type": "array"}], "unevaluatedItems": False},
        "unevaluatedItems next to a ref",
    ),
    (
        {"anyOf": [{"$ref": "#"}, {"type": "object"}], "unevaluatedProperties": {}},
        "unevaluatedProperties next to",
    ),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_read_of_an_invalid_schema_names_the_mistake(schema: Any, message: str) -> None:
    assert message in refusal(schema)


OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
NEEDS_B = {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}


@pytest.mark.parametrize(
    ("schemas", "expected"),
    [
        ([], True),
        ([{}], True),
        ([{"type": "integer"}, {"type": "string"}, {"type": "null"}], True),
        ([{"type": "integer"}, {"type": "string"}, {"const": 1.0}], False),
        ([{"$ref": "#/$defs/a"}, {"const": 2}], True),
        ([{"$ref": "#/$defs/a"}, {"const": 1}], False),
        ([{**OPEN, "required": ["a"], "additionalProperties": False}, NEEDS_B], True),
        ([{**OPEN, "required": ["a"]}, NEEDS_B], False),  # {"a": 1, "b": 1} is both
        ([{"type": "object"}, NEEDS_B], False),
    ],
)
def test_schemas_are_exclusive_if_no_output_of_one_matches_another(
    schemas: list[Any], expected: bool
) -> None:
    assert exclusive([schemas], {"$defs": {"a": {"const": 1}}}) is expected


def test_schemas_that_cannot_be_read_are_not_called_exclusive() -> None:
    with pytest.raises(ConfigError, match="contains"):
        exclusive([[{"contains": {}}, {"type": "null"}]], {})


def node(child: Any, **more: Any) -> dict[str, Any]:
    """An object with ten equal properties, and more."""
    properties = {f"p{i}": child for i in range(10)} | more
    return {"type": "object", "properties": properties, "required": [*properties]}


def test_schemas_that_refer_to_themselves_many_times_are_soon_compared() -> None:
    one, other = {"$ref": "#/$defs/one"}, {"$ref": "#/$defs/other"}  # ten times as many pairs at each level
    assert not exclusive([[one, other]], {"$defs": {"one": node(one), "other": node(other)}})


def test_more_branches_than_can_be_compared_in_time_are_refused() -> None:
    branches = [node({}, kind={"const": i}) for i in range(64)]
    assert exclusive([branches], {})
    with pytest.raises(ConfigError, match="too many branches to tell apart"):
        exclusive([branches] * 5, {})
