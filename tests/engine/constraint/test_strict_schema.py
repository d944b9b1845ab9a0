"""Schemas without the properties that they do not speak of."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constraint.strict_schema import forbid_additional_properties
from support.quick import examples


def test_objects_that_list_properties_have_no_others():
    schema = {
        "properties": {"a": {"properties": {"b": {}}}, "properties": {"type": "object"}},
        "items": {"anyOf": [{"properties": {"c": {}}}, True]},
        "$defs": {"d": {"properties": {}}},
    }
    found = forbid_additional_properties(schema)
    assert found["additionalProperties"] is False
    assert found["properties"]["a"]["additionalProperties"] is False
    assert "additionalProperties" not in found["properties"]["properties"]
    assert found["items"]["anyOf"][0]["additionalProperties"] is False
    assert found["$defs"]["d"]["additionalProperties"] is False
    assert "additionalProperties" not in schema


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {"properties": {}, "additionalProperties": True},
        {"properties": {}, "patternProperties": {"a": {}}},
        {"properties": {"a": {}}, "required": ["b"]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "$ref": "#/$defs/b", "$defs": {"b": {"properties": {"b": {}}}}},
    ],
)
def test_what_speaks_of_others_stays_as_it_is(schema):
    assert forbid_additional_properties(schema) == schema


names = st.sampled_from(["a", "b", "properties"])
schemas = st.recursive(
    st.sampled_from([True, {}, {"type": "integer"}, {"type": "object"}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, inner, max_size=2),
            "required": st.lists(names, max_size=2, unique=True),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "additionalProperties": inner,
        },
    ),
    max_leaves=6,
)
values = st.recursive(
    st.integers(0, 2) | st.none(),
    lambda inner: st.dictionaries(names, inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=4,
)


@examples(300)
@given(schema=schemas, value=values)
def test_what_is_valid_for_the_closed_one_is_valid(schema, value):
    if jsonschema.Draft202012Validator(forbid_additional_properties(schema)).is_valid(value):
        assert jsonschema.Draft202012Validator(schema).is_valid(value)
