"""JSON schemas on a real vocabulary: whatever tokens they allow, the text is valid."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.errors import ConfigError
from engine.types import Constraint
from support.quick import examples
from support.references.constraint_walk import Walk


def test_references_resolve() -> None:
    tree = {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "n": {"type": "integer"},
                    "left": {"$ref": "#/$defs/tree"},
                    "right": {"$ref": "#/$defs/tree"},
                },
                "required": ["n"],
                "additionalProperties": False,
            }
        },
    }
    for seed in range(8):
        walk = Walk(Constraint("json_schema", json.dumps(tree)), seed=seed).run(300, b'"}:n,0')
        assert walk.matcher.may_stop
        Draft202012Validator(tree).validate(json.loads(walk.text))


names = st.sampled_from(["a", "b", "cd", "é"])
leaves = st.one_of(
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-120, 120),
        st.integers(0, 200),
    ),
    st.just({"type": "string", "pattern": "^[a-c]{1,4}-(x|yz)$"}),
    st.just({"type": "string", "format": "date"}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": {"x": [1, "é"]}}]),
    st.lists(st.sampled_from([1, "a", None, True, "b\n"]), min_size=1, max_size=3).map(lambda v: {"enum": v}),
    st.integers(1, 40).map(lambda n: {"type": "integer", "multipleOf": n, "minimum": 0, "maximum": 999}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda items, low, more: {
                "type": "array",
                "items": items,
                "minItems": low,
                "maxItems": low + more,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.builds(
            lambda properties, n: {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:n],
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=3),
            st.integers(0, 3),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        inner.map(lambda schema: {"allOf": [schema]}),
    ),
    max_leaves=5,
)


@examples(60)
@given(schemas, st.integers(0, 2**32))
def test_output_of_any_schema_validates(schema: dict[str, Any], seed: int) -> None:
    try:
        walk = Walk(Constraint("json_schema", json.dumps(schema)), seed=seed).run(400, b'"}],:0-')
    except ConfigError as error:
        if "nsatisfiable" in str(error) or "nothing matches" in str(error):
            return
        raise
    assert walk.matcher.may_stop
    Draft202012Validator(schema).validate(json.loads(walk.text))
