"""One client's use of its limits in this process: token buckets and a count of running requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from server.keys.api_key import RateLimits

Clock = Callable[[], float]
CONCURRENCY_RETRY_S = 1.0  # when a running request will end is not known


class LimitReached(Exception):
    """unit: what is limited, in words. retry_after_s: when enough is available again."""

    def __init__(self, unit: str, limit: int, retry_after_s: float) -> None:
        super().__init__(f"{unit}: {limit}")
        self.unit, self.limit, self.retry_after_s = unit, limit, retry_after_s


class BucketState(NamedTuple):
    """remaining: whole units available now. reset_s: seconds until the whole limit is available again."""

    limit: int
    remaining: int
    reset_s: float


class TokenBucket:
    """Holds one minute's worth and refills evenly. More may be spent than it holds: then it is in debt."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock, self._level, self._at = clock, float(per_minute), clock()

    def wait_s(self, n: int) -> float:
        """Seconds until `n` may be spent: when that much is there, or the whole limit if `n` exceeds it."""
        lack = min(n, self.per_minute) - self._refill()
        return lack * 60 / self.per_minute if lack > 1e-9 else 0.0

    def spend(self, n: int) -> None:
        self._level = self._refill() - n

    def state(self) -> BucketState:
        level = self._refill()
        return BucketState(
            self.per_minute,
            max(0, math.floor(level + 1e-9)),
            (self.per_minute - level) * 60 / self.per_minute,
        )

    def resized(self, per_minute: int) -> TokenBucket:
        """A bucket with another limit and the same fraction of it used."""
        other = TokenBucket(per_minute, self._clock)
        other._level = self._refill() / self.per_minute * per_minute
        return other

    def _refill(self) -> float:
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level


class ClientUsage:
    """`admit` a request, count its tokens as they become known, `leave` at its end."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.running = 0
        self.requests: TokenBucket | None = None
        self.tokens: TokenBucket | None = None
        self._concurrent: int | None = None

    def set_limits(self, limits: RateLimits) -> None:
        """Change the limits; what was used so far still counts."""
        self.requests = self._bucket(self.requests, limits.requests_per_minute)
        self.tokens = self._bucket(self.tokens, limits.tokens_per_minute)
        self._concurrent = limits.concurrent_requests

    @property
    def has_rates(self) -> bool:
        """Whether there are rates to report in each response."""
        return self.requests is not None or self.tokens is not None

    def admit(self) -> None:
        """Count a request that begins. Raises LimitReached if it must not."""
        if self._concurrent is not None and self.running >= self._concurrent:
            raise LimitReached("concurrent requests", self._concurrent, CONCURRENCY_RETRY_S)
        _check(self.requests, 1, "requests per minute")
        _check(self.tokens, 1, "tokens per minute")
        if self.requests is not None:
            self.requests.spend(1)
        self.running += 1

    def enter(self) -> None:
        """Count work that outlives its request, which was already admitted."""
        self.running += 1

    def leave(self) -> None:
        self.running -= 1

    def spend_prompt(self, n: int) -> None:
        """Called before the prompt is computed. Raises LimitReached if it must wait; a prompt above the limit
        waits for the whole limit.
        """
        _check(self.tokens, n, "tokens per minute")
        if self.tokens is not None:
            self.tokens.spend(n)

    def _bucket(self, old: TokenBucket | None, limit: int | None) -> TokenBucket | None:
        if limit is None:
            return None
        return TokenBucket(limit, self._clock) if old is None else old.resized(limit)


def _check(bucket: TokenBucket | None, n: int, unit: str) -> None:
    wait_s = 0.0 if bucket is None else bucket.wait_s(n)
    if bucket is not None and wait_s > 0:
        raise LimitReached(unit, bucket.per_minute, wait_s)
