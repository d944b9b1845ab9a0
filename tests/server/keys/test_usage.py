"""Token buckets and counts, by a clock that only the tests move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.keys.api_key import RateLimits
from server.keys.usage import ClientUsage, LimitReached, TokenBucket
from support.quick import examples


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def usage(**limits) -> tuple[ClientUsage, Clock]:
    clock = Clock()
    client_usage = ClientUsage(clock)
    client_usage.set_limits(RateLimits(**limits))
    return client_usage, clock


def refusal(function, *arguments) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        function(*arguments)
    return caught.value


def test_everything_is_admitted_without_limits():
    client_usage, _ = usage()
    for _ in range(1000):
        client_usage.admit()
        client_usage.spend_prompt(10**9)
    assert client_usage.running == 1000


def test_requests_per_minute_are_limited_and_refilled_evenly():
    client_usage, clock = usage(requests_per_minute=6)
    for _ in range(6):
        client_usage.admit()
    limit = refusal(client_usage.admit)
    assert (limit.limit, limit.retry_after_s, str(limit)) == (6, 10.0, "requests per minute: 6")
    clock.now += 9.9
    assert refusal(client_usage.admit).retry_after_s == pytest.approx(0.1)
    clock.now += 0.1
    client_usage.admit()
    refusal(client_usage.admit)
    clock.now += 3600
    assert client_usage.requests.state() == (6, 6, 0.0)


def test_refused_requests_cost_nothing():
    client_usage, clock = usage(requests_per_minute=1)
    client_usage.admit()
    for _ in range(100):
        refusal(client_usage.admit)
    clock.now += 60
    client_usage.admit()
    assert client_usage.running == 2


def test_concurrent_requests_are_counted_until_they_end():
    client_usage, _ = usage(concurrent_requests=2)
    client_usage.admit()
    client_usage.admit()
    assert str(refusal(client_usage.admit)) == "concurrent requests: 2"
    client_usage.leave()
    client_usage.admit()


def test_generated_tokens_may_exceed_the_limit_and_the_debt_delays_later_requests():
    client_usage, clock = usage(tokens_per_minute=60)
    client_usage.admit()
    client_usage.spend_prompt(50)
    client_usage.tokens.spend(40)  # of the answer, which is there already
    assert client_usage.tokens.state() == (60, 0, 90.0)
    assert refusal(client_usage.admit).retry_after_s == pytest.approx(31)
    clock.now += 31
    client_usage.admit()


def test_prompt_over_the_limit_is_admitted_once_the_limit_is_full():
    client_usage, clock = usage(tokens_per_minute=60)
    client_usage.spend_prompt(30)
    assert refusal(client_usage.spend_prompt, 40).retry_after_s == pytest.approx(10)
    assert refusal(client_usage.spend_prompt, 4000).retry_after_s == pytest.approx(30)
    clock.now += 30
    client_usage.spend_prompt(120)
    assert refusal(client_usage.admit).retry_after_s == pytest.approx(61)


def test_changed_limits_keep_the_recorded_usage():
    client_usage, _ = usage(requests_per_minute=10)
    for _ in range(5):
        client_usage.admit()
    client_usage.set_limits(RateLimits(requests_per_minute=100, concurrent_requests=5))
    assert client_usage.requests.state().remaining == 50
    refusal(client_usage.admit)
    client_usage.set_limits(RateLimits())
    client_usage.admit()


@examples(100)
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200)), max_size=50), st.integers(1, 100))
def test_no_minute_ever_has_more_than_twice_the_limit(steps, per_minute):
    """A bucket that was full, and what flows in meanwhile."""
    clock = Clock()
    bucket = TokenBucket(per_minute, clock)
    spent = []
    for pause, n in steps:
        clock.now += pause
        if n <= per_minute and bucket.wait_s(n) == 0:
            bucket.spend(n)
            spent.append((clock.now, n))
        assert 0 <= bucket.state().remaining <= per_minute
    for begin, _ in spent:
        assert sum(n for at, n in spent if begin <= at <= begin + 60) <= 2 * per_minute + 1e-6
