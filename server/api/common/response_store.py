"""Responses kept in memory for clients that refer to them: bounded in time, number and size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

if TYPE_CHECKING:
    from server.api.openai.responses.formatter import ResponseFormat


@dataclass(frozen=True)
class StoredResponse:
    """One response, as JSON: what it takes is what it counts for.

    owner: the key with which it was made; nobody else sees it. conversation: all items that the model was
    given, and then those that it made.
    """

    id: str
    owner: bytes | None
    response: bytes
    conversation: bytes
    n_given: int  # items of the conversation that the model was given
    item_ids: tuple[str, ...]  # those that no earlier response has
    until: float

    @property
    def size(self) -> int:
        return len(self.response) + len(self.conversation)

    def items(self) -> list[dict[str, Any]]:
        """The conversation so far."""
        found: list[dict[str, Any]] = msgspec.json.decode(self.conversation)
        return found


class ResponseStore:
    """The newest `most` of the last `ttl_s` seconds, as far as they fit into `max_bytes`."""

    def __init__(
        self, most: int, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.ttl_s, self.max_bytes = most, ttl_s, max_bytes
        self.running: WeakValueDictionary[str, ResponseFormat] = WeakValueDictionary()
        self.size = 0
        self._clock = clock
        self._kept: dict[str, StoredResponse] = {}  # oldest first, so those that expire first are first
        self._holders: dict[tuple[bytes | None, str], str] = {}  # owner, item id → the response that has it

    def __len__(self) -> int:
        return len(self._kept)

    def fits(self, response: bytes, conversation: bytes) -> bool:
        """Whether such a response can be kept at all."""
        return self.most > 0 and len(response) + len(conversation) <= self.max_bytes

    def put(
        self,
        id: str,
        owner: bytes | None,
        response: bytes,
        conversation: bytes,
        n_given: int,
        item_ids: Sequence[str],
    ) -> None:
        """Keep one that fits; older ones make room."""
        until = self._clock() + self.ttl_s
        kept = StoredResponse(id, owner, response, conversation, n_given, tuple(item_ids), until)
        self._kept[id] = kept
        self.size += kept.size
        self._holders.update({(owner, item): id for item in item_ids})
        self._expire()

    def get(self, id: str, owner: bytes | None) -> StoredResponse | None:
        self._expire()
        kept = self._kept.get(id)
        return kept if kept is not None and kept.owner == owner else None

    def item(self, id: str, owner: bytes | None) -> dict[str, Any] | None:
        """An item of a kept response."""
        kept = self.get(self._holders.get((owner, id), ""), owner)
        if kept is None:
            return None
        return next((item for item in kept.items() if item.get("id") == id), None)

    def remove(self, id: str, owner: bytes | None) -> bool:
        kept = self.get(id, owner)
        if kept is not None:
            self._drop(id)
        return kept is not None

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.until > now and len(self._kept) <= self.most and self.size <= self.max_bytes:
                return
            self._drop(oldest.id)

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id)
        self.size -= kept.size
        for item in kept.item_ids:
            if self._holders.get((kept.owner, item)) == id:
                del self._holders[kept.owner, item]
