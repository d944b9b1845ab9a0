"""JSON schemas as grammars: every text is valid, and every valid value is a text."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constraint.json_schema import closed, rule
from engine.errors import ConfigError
from support.quick import examples
from support.references.json_walk import accepts_value, matcher_of, random_text, refusal

names = st.sampled_from(["a", "b", "properties"])


schemas = st.recursive(
    st.sampled_from([True, {}, {"type": "integer"}, {"type": "object"}, {"const": 1}, {"enum": ["a", None]}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "null"]]),
            "properties": st.dictionaries(names, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^x"]), inner, max_size=2),
            "propertyNames": st.sampled_from([{"pattern": "^[a-z]+$"}, {"enum": ["a", "b"]}]),
            "required": st.lists(names, max_size=2, unique=True),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1), max_size=1),
            "unevaluatedProperties": inner,
            "additionalProperties": inner,
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(1, 3),
        },
    ),
    max_leaves=6,
)


@examples(300)
@given(schema=schemas, seed=st.integers(0, 2**20), close=st.booleans())
def test_every_generated_text_is_valid(schema: Any, seed: int, close: bool) -> None:
    try:
        matcher = matcher_of(schema, close=close)
    except ConfigError:
        return
    text = random_text(matcher, seed, 120)
    if text is not None:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))


values = st.recursive(
    st.integers(0, 2) | st.none() | st.sampled_from(["a", "x"]),
    lambda inner: st.dictionaries(names, inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=4,
)


simple = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "array", "integer", "string", ["integer", "object", "null"]])},
    optional={
        "properties": st.fixed_dictionaries(
            {}, optional={"a": st.just({"type": "integer"}), "b": st.just({})}
        ),
        "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True).map(sorted),
        "additionalProperties": st.booleans(),
        "items": st.sampled_from([{"type": "integer"}, {"type": ["string", "null"]}, {}]),
        "maxItems": st.integers(0, 2),
        "minProperties": st.integers(0, 2),
        "maximum": st.integers(0, 2),
        "maxLength": st.integers(0, 1),
    },
)


@examples(200)
@given(schema=simple, value=values)
def test_valid_values_are_accepted(schema: Any, value: Any) -> None:
    try:
        matcher = matcher_of(schema, close=False)
    except ConfigError:
        assert not jsonschema.Draft202012Validator(schema).is_valid(value)
        return
    # Names that are not listed come last.
    value = {k: value[k] for k in sorted(value)} if isinstance(value, dict) else value
    if isinstance(value, dict) and list(value)[:1] == ["a"] and "a" not in schema.get("properties", {}):
        return
    assert accepts_value(matcher, value) == jsonschema.Draft202012Validator(schema).is_valid(value)


def test_rule_does_not_modify_the_schema() -> None:
    schema = {"properties": {"a": {"format": "x"}}, "x-guidance": {"lenient": True}}
    before = json.dumps(schema)
    rule(schema)
    assert closed(schema)["x-guidance"] == {"closed": True, "lenient": True}
    assert json.dumps(schema) == before


def test_an_option_that_is_null_has_its_default() -> None:
    for name in ("item_separator", "key_separator", "whitespace_pattern", "whitespace_flexible", "lenient"):
        assert rule({"type": "object", "x-guidance": {name: None}}) == rule({"type": "object"})


REFUSED: list[tuple[Any, str]] = [
    (False, "the schema is false"),
    (None, "not null"),
    (3, "not a number"),
    ([{}], "not a list"),
    ("x", "not a string"),
    ({"x-guidance": 1}, "x-guidance must be an object"),
    ({"x-guidance": {"nix": 1}}, "'nix' is not one of item_separator"),
    ({"x-guidance": {"lenient": 1}}, "lenient must be true or false"),
    ({"maximum": float("inf")}, "cannot be written as JSON"),
    ({"maximum": 10**5000}, "cannot be written as JSON"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_rule_of_an_unsupported_schema_names_the_mistake(schema: Any, message: str) -> None:
    assert message in refusal(schema)
