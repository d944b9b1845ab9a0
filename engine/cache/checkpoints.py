"""The order in which checkpoints give way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

H = TypeVar("H")
V = TypeVar("V")


class Checkpoints(Generic[H, V]):
    """What nodes of the prefix cache keep.

    First to go is what was made on the way through a long prompt and never used, then the least recently
    used.
    """

    def __init__(self) -> None:
        self._passing: dict[H, V] = {}  # made on the way and never used
        self._lasting: dict[H, V] = {}

    def __len__(self) -> int:
        return len(self._passing) + len(self._lasting)

    def __contains__(self, holder: H) -> bool:
        return holder in self._lasting or holder in self._passing

    def items(self) -> Iterator[tuple[H, V]]:
        """In the order in which they give way."""
        yield from self._passing.items()
        yield from self._lasting.items()

    def add(self, holder: H, value: V, *, passing: bool = False) -> None:
        """Keep `value`. passing: it was made on the way, so that little is lost if it gives way early."""
        (self._passing if passing else self._lasting)[holder] = value

    def use(self, holder: H) -> None:
        """Count it as just used, if there is one."""
        if holder in self:
            self._lasting[holder] = self.pop(holder)

    def pop(self, holder: H) -> V:
        return self._passing.pop(holder) if holder in self._passing else self._lasting.pop(holder)
