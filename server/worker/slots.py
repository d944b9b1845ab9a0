"""Slots, as llama-server's clients know them: numbered places, each with the sequence that ran there last.

The engine knows nothing of them: its cache is one pool, where any request finds what any other left. A slot
is a name for one sequence in it, to save, restore or erase.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.cache.prefix_cache import common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.types import Request
    from server.worker.stream import Stream

_GLANCE = 32  # tokens that tell whether the rest is worth comparing


class Slot:
    """stream: what runs in it. tokens: of the last that ended, or of what was restored."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.stream: Stream | None = None
        self.tokens = array("i")
        self.used_at = 0.0

    def keep(self, tokens: Sequence[int]) -> None:
        self.tokens = array("i", tokens)
        self.used_at = time.monotonic()


class Slots:
    """The slots of one model. A request that names none gets the free one that held most of its beginning."""

    def __init__(self, n: int) -> None:
        self._slots = [Slot(i) for i in range(n)]
        self._places: dict[str, tuple[Slot, Request]] = {}  # by the id of the request
        self._waiting: dict[str, tuple[Stream, Request]] = {}  # more requests than slots, oldest first

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, id: int) -> Slot:
        return self._slots[id]

    def enter(self, stream: Stream, request: Request) -> None:
        """Give a stream its slot, now or when one is free; `request.slot` then tells its number.

        Who names a slot shares it with whatever runs there.
        """
        asked = request.slot
        if asked is not None and 0 <= asked < len(self._slots):
            self._place(self._slots[asked], stream, request)
            return
        request.slot = None
        free = [slot for slot in self._slots if slot.stream is None]
        if free:
            self._place(_fitting(free, array("i", request.prompt)), stream, request)
        else:
            self._waiting[request.id] = stream, request

    def leave(self, stream: Stream) -> None:
        """A stream has ended: its slot holds its sequence."""
        id = stream.request.id
        if id in self._waiting:
            _, request = self._waiting.pop(id)
            slot = min(self._slots, key=lambda slot: slot.used_at)
            request.slot = slot.id
        elif id in self._places:
            slot, _ = self._places.pop(id)
        else:
            return
        slot.keep([*stream.request.prompt, *stream.request.generated, *stream.tokens])
        if slot.stream is not stream:
            return
        slot.stream = None
        if self._waiting:
            waiting = next(iter(self._waiting))
            self._place(slot, *self._waiting.pop(waiting))

    def _place(self, slot: Slot, stream: Stream, request: Request) -> None:
        request.slot = slot.id
        slot.stream = stream
        self._places[request.id] = slot, request


def _fitting(free: list[Slot], prompt: array[int]) -> Slot:
    best, longest = None, 0
    for slot in free:
        n = common_prefix(slot.tokens[:_GLANCE], prompt[:_GLANCE])
        if n == _GLANCE:
            n = common_prefix(slot.tokens, prompt)
        if n > longest:
            best, longest = slot, n
    if best is not None and 2 * longest >= min(len(prompt), len(best.tokens)):
        return best
    return min(free, key=lambda slot: slot.used_at)
