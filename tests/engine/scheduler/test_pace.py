"""How much of a prompt a step takes beside streams, from measured times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler.pace import MULTIPLE, REFRESH, SMALLEST_CHUNK, STRETCH, PrefillPace


def measured(decode_ms: float = 10.0, token_ms: float = 0.1) -> PrefillPace:
    pace = PrefillPace()
    pace.measured(1, 0, decode_ms)
    pace.measured(0, 100, decode_ms + 100 * token_ms)
    return pace


def whole(n: float) -> int:
    return int(n) // MULTIPLE * MULTIPLE


def test_limit_without_streams_is_unbounded() -> None:
    assert measured().limit(0) is None


@pytest.mark.parametrize("step", [(1, 0, 10.0), (0, 100, 10.0)])
def test_limit_before_both_kinds_of_steps_were_measured_is_unbounded(step: tuple[int, int, float]) -> None:
    pace = PrefillPace()
    pace.measured(*step)
    assert pace.limit(1) is None


def test_limit_fills_a_step_to_its_stretch() -> None:
    assert measured(decode_ms=10.0, token_ms=0.1).limit(1) == whole((STRETCH - 1) * 10.0 / 0.1)


def test_limit_on_a_slow_machine_is_positive() -> None:
    assert measured(decode_ms=10.0, token_ms=9.0).limit(1) == SMALLEST_CHUNK


def test_limit_follows_mixed_steps_as_contexts_grow() -> None:
    pace = measured(token_ms=0.1)
    for _ in range(REFRESH - 1):
        pace.measured(1, 100, 10.0 + 100 * 0.2)
    assert pace.limit(1) == whole((STRETCH - 1) * 10.0 / 0.2)


def test_limit_after_many_mixed_steps_measures_a_step_without_prompts() -> None:
    pace = measured()
    for _ in range(REFRESH):
        pace.measured(1, 100, 20.0)
    assert pace.limit(1) == 0
    pace.measured(1, 0, 10.0)
    assert pace.limit(1)


def test_limit_with_nearly_free_tokens_is_finite() -> None:
    pace = PrefillPace()
    pace.measured(0, 100, 1e-300)
    pace.measured(1, 0, 1e100)
    assert pace.limit(1)


def test_measured_short_prompts_alone_set_no_limit() -> None:
    pace = measured(token_ms=0.1)
    pace.measured(0, 1, 50.0)
    assert pace.limit(1) == measured(token_ms=0.1).limit(1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 512), st.floats(0, 1e6)), max_size=80))
def test_limit_is_positive_whatever_was_measured(steps: list[tuple[int, int, float]]) -> None:
    pace = PrefillPace()
    for step in steps:
        pace.measured(*step)
    if pace.limit(1) == 0:
        pace.measured(1, 0, 1.0)
    assert pace.limit(1) is None or pace.limit(1) >= SMALLEST_CHUNK  # type: ignore[operator]
