"""Keywords of the wrong form, and references that lead nowhere, are refused by their place."""

from __future__ import annotations

from typing import Any

import pytest

from support.references.json_walk import refusal

REFUSED: list[tuple[Any, str]] = [
    ({"maximum": "3"}, "maximum must be a number"),
    ({"maxLength": -1}, "maxLength must be an integer from 0"),
    ({"properties": []}, "properties must be an object"),
    ({"anyOf": []}, "at least one"),
    ({"$ref": "#/$defs/nix"}, "there is no '#/$defs/nix' in the schema"),
    ({"$ref": "https://example.com/x"}, "only references inside of the schema"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_read_of_an_invalid_document_names_the_mistake(schema: Any, message: str) -> None:
    assert message in refusal(schema)
