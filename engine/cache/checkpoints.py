"""The order in which checkpoints are evicted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

H = TypeVar("H")
V = TypeVar("V")


class Checkpoints(Generic[H, V]):
    """The checkpoints of prefix cache nodes.

    Checkpoints made within a long prompt and never used are evicted first, then the least recently used.
    """

    def __init__(self) -> None:
        self._passing: dict[H, V] = {}  # made on the way and never used
        self._lasting: dict[H, V] = {}

    def __len__(self) -> int:
        return len(self._passing) + len(self._lasting)

    def __contains__(self, holder: H) -> bool:
        return holder in self._lasting or holder in self._passing

    def items(self) -> Iterator[tuple[H, V]]:
        """The checkpoints in order of eviction."""
        yield from self._passing.items()
        yield from self._lasting.items()

    def add(self, holder: H, value: V, *, passing: bool = False) -> None:
        """Store `value`. passing: it was made within a prompt, so little is lost if it is evicted early."""
        (self._passing if passing else self._lasting)[holder] = value

    def use(self, holder: H) -> None:
        """Mark the node's checkpoint, if it has one, as just used."""
        if holder in self:
            self._lasting[holder] = self.pop(holder)

    def pop(self, holder: H) -> V:
        return self._passing.pop(holder) if holder in self._passing else self._lasting.pop(holder)
