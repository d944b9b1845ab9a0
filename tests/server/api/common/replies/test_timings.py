"""Rates and sums of times, under both names."""

from __future__ import annotations

from engine.types import Timings
from server.api.common.replies.timings import timings_reply, total_timings


def test_rates_leave_out_the_first_token_of_each_sequence():
    one = timings_reply(Timings(prompt_n=4, prompt_ms=8.0, predicted_n=5, predicted_ms=100.0, cached_n=3))
    assert (one["prompt_per_token_ms"], one["prompt_per_second"]) == (2.0, 500.0)
    assert (one["predicted_per_token_ms"], one["predicted_per_second"]) == (25.0, 40.0)
    assert (one["cache_n"], one["cached_n"]) == (3, 3)
    two = total_timings(
        [Timings(predicted_n=5, predicted_ms=100.0), Timings(predicted_n=1, predicted_ms=0.0)]
    )
    assert (two["predicted_n"], two["predicted_per_second"]) == (6, 40.0)
    none = timings_reply(Timings(predicted_n=1))
    assert none["predicted_per_second"] == none["predicted_per_token_ms"] == none["prompt_per_second"] == 0
