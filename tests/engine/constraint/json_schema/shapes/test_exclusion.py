"""Conditions on values that are known."""

from __future__ import annotations

from support.references.json_walk import takes


def test_condition_about_known_values_is_exact() -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "integer"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["x"]},
    }
    assert takes(schema, '{"kind": "a", "x": 1}')
    assert takes(schema, '{"kind": "b"}')
    assert not takes(schema, '{"kind": "a"}')
