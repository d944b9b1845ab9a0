"""How large a schema may be."""

from __future__ import annotations

from typing import Any

import pytest

from engine.constraint.json_schema import rule
from support.references.json_walk import refusal


@pytest.mark.parametrize(
    "multiples", [[10_000], [0.01, 5, 100_000], [97, 101], [1e-7], [2.5, 0.125], [9973, 0.001], [10**9]]
)
def test_read_of_several_multiples_compiles(multiples: list[float]) -> None:
    rule({"allOf": [{"multipleOf": multiple} for multiple in multiples]})


def nested(n: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(n):
        schema = {"items": schema}
    return schema


REFUSED: list[tuple[Any, str]] = [
    (nested(61), "deeper than 60"),
    ({"properties": {f"p{i}": {} for i in range(1001)}}, "too many properties"),
    ({"anyOf": [{"properties": {f"p{i}": {} for i in range(999)}}] * 6}, "too many properties"),
    ({"enum": list(range(10_001))}, "more than 10000 values"),
    ({"multipleOf": 10_007}, "remainders"),
    ({"multipleOf": 2**20}, "remainders"),
    ({"multipleOf": 1e-300}, "remainders"),
    ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "remainders"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_read_of_invalid_limits_names_the_mistake(schema: Any, message: str) -> None:
    assert message in refusal(schema)
