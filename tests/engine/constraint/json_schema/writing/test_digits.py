"""Numbers between bounds as regular expressions."""

from __future__ import annotations

import re
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.constraint.json_schema.writing.digits import decimals, integer_bounds, integers
from support.quick import examples

big = st.integers(-(10**40), 10**40) | st.integers(-1300, 1300)


@examples(300)
@given(low=st.none() | big, high=st.none() | big, values=st.lists(big, max_size=20))
def test_integers_pattern_matches_exactly_the_range(
    low: int | None, high: int | None, values: list[int]
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    pattern = re.compile(integers(low, high))
    near = [bound + step for bound in (low, high) if bound is not None for step in (-1, 0, 1)]
    for value in [*values, *near, *range(-20, 21)]:
        inside = (low is None or value >= low) and (high is None or value <= high)
        assert bool(pattern.fullmatch(str(value))) == inside, (value, pattern.pattern)


numbers = st.decimals(-200, 200, places=3) | st.decimals(-5, 5, places=1) | st.integers(-3, 3).map(Decimal)


@examples(500)
@given(
    low=st.none() | numbers,
    high=st.none() | numbers,
    opens=st.tuples(st.booleans(), st.booleans()),
    values=st.lists(numbers, max_size=30),
)
def test_decimals_pattern_matches_exactly_the_range(
    low: Decimal | None, high: Decimal | None, opens: tuple[bool, bool], values: list[Decimal]
) -> None:
    if low is None and high is None:
        return
    if low is not None and high is not None:
        if low > high:
            low, high = high, low
        if low == high:
            opens = False, False
    low_open, high_open = opens[0] and low is not None, opens[1] and high is not None
    pattern = re.compile(decimals(low, low_open, high, high_open))
    near = [bound + Decimal(step) / 1000 for bound in (low, high) if bound is not None for step in (-1, 0, 1)]
    for value in [*values, *near]:
        inside = (low is None or value > low or (value == low and not low_open)) and (
            high is None or value < high or (value == high and not high_open)
        )
        text = f"{value:f}"
        if value == 0:
            text = text.removeprefix("-")
        assert bool(pattern.fullmatch(text)) == inside, (text, pattern.pattern)


def test_integer_bounds_are_the_first_and_last_integer() -> None:
    assert integer_bounds(Decimal("1.5"), False, Decimal("1e3"), True) == (2, 999)
    assert integer_bounds(Decimal(-3), True, None, False) == (-2, None)


def test_bounds_with_many_digits_are_exact() -> None:
    bound = Decimal("0.12345678901234567890123")
    pattern = re.compile(decimals(bound, False, None, False))
    assert pattern.fullmatch(str(bound))
    assert not pattern.fullmatch("0.12345678901234567890122")
    assert pattern.fullmatch("0.12345678901234567890124")
