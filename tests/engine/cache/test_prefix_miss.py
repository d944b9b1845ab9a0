"""Which reason is counted where a cached prefix ends."""

from __future__ import annotations

import pytest

from engine.cache.prefix_miss import Miss, miss_after


@pytest.mark.parametrize(
    ("children", "evicted", "n", "reason"),
    [
        ({}, set(), 0, Miss.NEW),
        ({2: None}, set(), 0, Miss.NEW),
        ({2: None}, set(), 5, Miss.DIVERGED),
        ({}, set(), 5, Miss.EXTENDED),
        ({}, {3}, 5, Miss.EXTENDED),
        ({2: None}, {1}, 5, Miss.EVICTED),
        ({}, {1}, 0, Miss.EVICTED),
    ],
)
def test_what_followed_once_was_evicted_and_else_the_children_decide(children, evicted, n, reason):
    assert miss_after(children, evicted, 1, n) == reason
