"""What nothing matches is refused before the text begins."""

from __future__ import annotations

from typing import Any

import pytest

from support.references.json_walk import refusal

REFUSED: list[tuple[Any, str]] = [
    ({"type": "integer", "minimum": 2, "maximum": 1}, "nothing matches it: no number is between 2 and 1"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "nothing matches"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_write_of_an_unsatisfiable_schema_is_refused(schema: Any, message: str) -> None:
    assert message in refusal(schema)
