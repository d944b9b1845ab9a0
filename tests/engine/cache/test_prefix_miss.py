"""Which reason is counted where a cached prefix ends."""

from __future__ import annotations

from array import array

import pytest

from engine.cache.prefix_miss import Miss, common_prefix, miss_after


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
def test_miss_after_evicted_tokens_is_evicted_else_the_children_decide(children, evicted, n, reason):
    assert miss_after(children, evicted, 1, n) == reason


@pytest.mark.parametrize("n", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("extra", [[], [1], [2, 3]])
def test_common_prefix_ends_at_the_first_difference(n: int, extra: list[int]) -> None:
    same = list(range(10, 10 + n))
    assert common_prefix(array("i", same), array("i", same + extra)) == n
    assert common_prefix(array("i", [*same, 9, 8, 7]), array("i", [*same, *extra, 5])) == n
