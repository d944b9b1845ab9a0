"""Slots as in llama-server's API: numbered places, each with the sequence that last ran there.

The engine has no slots: its KV cache is one pool, in which every request can reuse every prefix. Here a slot
is only a name for one sequence of the pool, with which it can be saved, restored or erased.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence

from engine.cache.prefix_miss import common_prefix
from engine.types import AdapterScales, Request
from server.worker.requests.stream import Stream

_GLANCE = 32  # tokens that are compared before the rest is


class ServerSlot:
    """stream: the one running in it. tokens, lora, salt: of the last sequence that ended there or was
    restored.
    """

    def __init__(self, id: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = id
        self._clock = clock
        self.stream: Stream | None = None
        self.tokens = array("i")
        self.lora: AdapterScales = ()
        self.salt = ""
        self.used_at = 0.0

    def keep(self, tokens: Sequence[int], lora: AdapterScales = (), salt: str = "") -> None:
        self.tokens, self.lora, self.salt = array("i", tokens), lora, salt
        self.used_at = self._clock()


class Slots:
    """The slots of one model. A request that names none gets the free slot with the longest common prefix."""

    def __init__(self, n: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = [ServerSlot(i, clock) for i in range(n)]
        self._placed: dict[str, tuple[ServerSlot, Request]] = {}  # by request id
        self._waiting: dict[str, tuple[Stream, Request]] = {}  # more requests than slots, oldest first

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[ServerSlot]:
        return iter(self._slots)

    def __getitem__(self, id: int) -> ServerSlot:
        return self._slots[id]

    def enter(self, stream: Stream, request: Request) -> None:
        """Assign a slot to a stream, now or when one is free, and store its number in `request.slot`.

        A request that names a slot shares it with whatever else runs there.
        """
        id = request.slot
        if id is not None and 0 <= id < len(self._slots):
            self._place(self._slots[id], stream, request)
            return
        request.slot = None
        free = [slot for slot in self._slots if slot.stream is None]
        if free:
            self._place(_best_match(free, request), stream, request)
        else:
            self._waiting[request.id] = stream, request

    def leave(self, stream: Stream) -> None:
        """A stream has ended; its slot keeps the sequence."""
        id = stream.request.id
        if id in self._waiting:
            _, request = self._waiting.pop(id)
            slot = min(self._slots, key=lambda slot: slot.used_at)
            request.slot = slot.id
        elif id in self._placed:
            slot, _ = self._placed.pop(id)
        else:
            return
        ended = stream.request
        slot.keep([*ended.prompt, *ended.generated, *stream.tokens], ended.lora, ended.cache_salt)
        if slot.stream is not stream:
            return
        slot.stream = None
        if self._waiting:
            waiting = next(iter(self._waiting))
            self._place(slot, *self._waiting.pop(waiting))

    def _place(self, slot: ServerSlot, stream: Stream, request: Request) -> None:
        request.slot = slot.id
        slot.stream = stream
        self._placed[request.id] = slot, request


def _best_match(free: list[ServerSlot], request: Request) -> ServerSlot:
    best, longest = None, 0
    prompt = array("i", request.prompt)
    for slot in free:
        if (slot.lora, slot.salt) != (request.lora, request.cache_salt):
            continue
        n = common_prefix(slot.tokens[:_GLANCE], prompt[:_GLANCE])
        if n == _GLANCE:
            n = common_prefix(slot.tokens, prompt)
        if n > longest:
            best, longest = slot, n
    if best is not None and 2 * longest >= min(len(prompt), len(best.tokens)):
        return best
    return min(free, key=lambda slot: slot.used_at)
