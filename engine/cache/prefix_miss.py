"""Why the prefix cache holds no more of a prompt: what the metrics count."""

from __future__ import annotations

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
