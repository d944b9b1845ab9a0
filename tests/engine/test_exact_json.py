"""JSON that keeps every digit."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.exact_json import ExactFloat, dumps, loads, number, read_float, write

TEXT = '{"a": [0.1234567890123456789, 123456789012345678901234567890, 1.5, -1E-30, "0.1"]}'


def test_dumps_keeps_every_digit() -> None:
    assert dumps(loads(TEXT)) == TEXT.replace("-1E-30", "-1e-30")
    assert write(loads(TEXT), indent=1) == json.dumps(json.loads(TEXT), indent=1).replace(
        "0.12345678901234568", "0.1234567890123456789"
    )
    assert dumps([Decimal("1e400"), Decimal("0.10")]) == "[1e+400, 0.10]"


def test_exact_float_compares_as_a_float_and_prints_its_text() -> None:
    value = read_float("0.1234567890123456789")
    assert isinstance(value, ExactFloat)
    assert value == 0.1234567890123456789
    assert f"{value!s} {value!r}" == "0.1234567890123456789 0.1234567890123456789"
    assert pickle.loads(pickle.dumps(value)).text == value.text
    assert number(value) == Decimal("0.1234567890123456789")
    assert type(read_float("0.25")) is type(read_float("1.10")) is float


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_loads_of_any_decimal_keeps_its_value(value: Decimal) -> None:
    text = f"{value:f}" if "." in f"{value:f}" else f"{value:f}.0"
    assert number(loads(text)) == value
    assert number(loads(dumps(loads(text)))) == value


@pytest.mark.parametrize("text", ["{", "1e999", "[" * 100_000, "1.", "1" * 5000])
def test_loads_of_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        loads(text)


def test_dumps_of_a_value_without_json_is_refused() -> None:
    for value in (float("nan"), Decimal("Infinity"), {1}, 10**5000):
        with pytest.raises(ConfigError):
            dumps(value)
