"""The order in which checkpoints give way."""

from __future__ import annotations

from engine.cache.checkpoints import Checkpoints


def test_intermediate_checkpoints_are_evicted_first_then_the_least_recently_used() -> None:
    checkpoints: Checkpoints[str, int] = Checkpoints()
    for i, name in enumerate("abcd"):
        checkpoints.add(name, i, passing=name in "cd")
    assert list(checkpoints.items()) == [("c", 2), ("d", 3), ("a", 0), ("b", 1)]
    checkpoints.use("a")
    checkpoints.use("c")  # now it has shown its worth
    checkpoints.use("x")  # there is none
    assert list(checkpoints.items()) == [("d", 3), ("b", 1), ("a", 0), ("c", 2)]
    assert checkpoints.pop("d") == 3
    assert "d" not in checkpoints
    assert len(checkpoints) == 3
