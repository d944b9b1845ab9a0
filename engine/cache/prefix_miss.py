"""How far token sequences agree, and why the prefix cache holds no more of a prompt, for metrics.

Does not import numpy, since the server imports it before it starts an engine process.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping
from enum import StrEnum


class Miss(StrEnum):
    """Why the next token of a prompt is not in the cache."""

    NONE = "none"  # it is
    NEW = "new"  # no cached prompt begins like this one
    EXTENDED = "extended"  # it goes on where a cached text ends
    DIVERGED = "diverged"  # cached texts go on differently
    EVICTED = "evicted"  # it was cached, until others needed the room
    NO_CHECKPOINT = "no_checkpoint"  # it is, but no recurrent state that could go on from there
    DISABLED = "disabled"  # the request uses no cache


def miss_after(children: Mapping[int, object], evicted: Container[int], token: int, n: int) -> Miss:
    """Why `token` does not follow a node with these children and evicted ones, after `n` cached tokens."""
    if token in evicted:
        return Miss.EVICTED
    if not n:
        return Miss.NEW
    return Miss.DIVERGED if children else Miss.EXTENDED


def common_prefix(a: array[int], b: array[int]) -> int:
    """How many leading tokens are equal. By bisection, since slices compare much faster than items."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # a[:low] == b[:low] and a[:high] != b[:high]
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
