"""Shapes of single values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from engine.constraint.json_schema.shapes.constants import constant, constants, merged, single
from engine.constraint.json_schema.shapes.types import AnyOf, Boolean, Null, Number, Shape, String
from support.references.json_walk import accepts_value, matcher_of


@pytest.mark.parametrize(
    "value", [None, True, "a\n\u00e9", 0, -(10**30), [1, ["a"]], {"b": {"a": None}, "a": []}]
)
def test_a_constant_matches_its_value_alone(value: Any) -> None:
    matcher = matcher_of({"enum": [value]})
    assert accepts_value(matcher, value)
    assert not any(accepts_value(matcher, other) for other in (False, "a", 1, [1], {}))


def test_constants_merge_by_type_and_can_be_listed_again() -> None:
    values: list[Shape] = [single("a"), Null(), single(Decimal(1)), single("b"), single("a")]
    shape = merged(values)
    assert shape == AnyOf((String(values=("a", "b")), Number(values=(Decimal(1),)), Null()))
    assert constants(shape) == [single("a"), single("b"), single(Decimal(1)), Null()]
    assert constants(Boolean()) == [Boolean(True), Boolean(False)]
    assert constants(AnyOf((Null(), String()))) is None
    assert constants(constant([1])) is None
