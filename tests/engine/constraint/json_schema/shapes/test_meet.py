"""What several schemas have in common."""

from __future__ import annotations

from typing import Any

from support.references.json_walk import takes


def test_recursive_references_can_be_combined() -> None:
    def tree(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"child": {"$ref": f"#/$defs/{name}"}, name: {"const": 1}}}

    schema = {
        "allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}],
        "$defs": {"one": tree("one"), "two": tree("two")},
    }
    assert takes(schema, '{"child": {"one": 1, "two": 1}, "one": 1}', close=True)
    assert not takes(schema, '{"child": {"one": 2}}')
