"""The sum behind log-probabilities, and how many rows of logits are kept at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.sampling.log_softmax import LOGITS_BYTES, log_sum_exp, max_rows


def test_log_sum_exp_of_equal_logits() -> None:
    assert log_sum_exp(np.full(1000, 3.0, np.float32)) == pytest.approx(3 + math.log(1000))


def test_log_sum_exp_keeps_many_small_terms() -> None:
    logits = np.full(1 << 20, -17.0, np.float32)
    logits[0] = 0  # in float32 none of the other terms would change a sum of 1
    assert log_sum_exp(logits) == pytest.approx(math.log1p(((1 << 20) - 1) * math.exp(-17)), rel=1e-6)


def test_log_sum_exp_of_large_logits_does_not_overflow() -> None:
    assert log_sum_exp(np.array([1e4, 1e4], np.float32)) == pytest.approx(1e4 + math.log(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_log_sum_exp_of_broken_logits_is_not_finite(bad: float) -> None:
    assert not math.isfinite(log_sum_exp(np.array([0, bad, 1], np.float32)))


def test_max_rows_fills_the_budget_and_is_at_least_one() -> None:
    assert max_rows(262144) == LOGITS_BYTES >> 20
    assert max_rows(LOGITS_BYTES) == 1
