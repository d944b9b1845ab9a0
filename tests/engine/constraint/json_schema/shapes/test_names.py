"""Patterns, as JSON Schema has them."""

from __future__ import annotations

import pytest

from support.references.json_walk import takes


def test_enum_beside_an_unsupported_pattern_is_filtered_by_it() -> None:
    for schema in (
        {"enum": ["ab", "b"], "pattern": "^.*(?<=a)b"},
        {"allOf": [{"pattern": "^.*(?<=a)b"}, {"enum": ["ab", "b"]}]},
    ):
        assert takes(schema, '"ab"')
        assert not takes(schema, '"b"')


@pytest.mark.parametrize(("pattern", "good", "bad"), [("^[a&&b]$", "&", "c"), ("^[[:a]+]$", "[:a]", "a")])
def test_character_classes_match_those_of_ecma(pattern: str, good: str, bad: str) -> None:
    """Not nested, nor intersected."""
    for schema, text in (
        ({"type": "string", "pattern": pattern}, '"{}"'),
        (
            {"type": "object", "patternProperties": {pattern: {}}, "additionalProperties": False},
            '{{"{}": 1}}',
        ),
        ({"enum": [good, bad], "pattern": pattern}, '"{}"'),
    ):
        assert takes(schema, text.format(good))
        assert not takes(schema, text.format(bad))
