"""Responses stored in memory for clients that refer to them: bounded in time, number and size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

F = TypeVar("F")


@dataclass(frozen=True)
class StoredContent:
    """A response and its conversation as JSON: all input items, then the output items."""

    response: bytes
    conversation: bytes
    n_input: int  # items at the beginning of `conversation`
    item_ids: tuple[str, ...]  # those that no earlier response has

    @property
    def size(self) -> int:
        return len(self.response) + len(self.conversation)

    def items(self) -> list[dict[str, Any]]:
        """The conversation."""
        items: list[dict[str, Any]] = msgspec.json.decode(self.conversation)
        return items


@dataclass(frozen=True)
class StoredResponse:
    """owner: digest of the API key of its client; nobody else sees it. until: by the store's clock."""

    id: str
    owner: bytes | None
    content: StoredContent
    until: float


class ResponseStore(Generic[F]):
    """The newest `most` responses of the last `ttl_s` seconds, as far as they fit into `max_bytes`.

    running: of responses that are still generated, whatever their route needs, by id.
    """

    def __init__(
        self, most: int, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.ttl_s, self.max_bytes = most, ttl_s, max_bytes
        self.running: WeakValueDictionary[str, F] = WeakValueDictionary()
        self.size = 0
        self._clock = clock
        self._stored: dict[str, StoredResponse] = {}  # oldest first, so those that expire first are first
        self._holders: dict[tuple[bytes | None, str], str] = {}  # owner, item id → the response that has it

    def __len__(self) -> int:
        return len(self._stored)

    def fits(self, content: StoredContent) -> bool:
        """Whether such a response can be stored at all."""
        return self.most > 0 and content.size <= self.max_bytes

    def put(self, id: str, owner: bytes | None, content: StoredContent) -> None:
        """Store one that fits; older ones make room."""
        stored = StoredResponse(id, owner, content, self._clock() + self.ttl_s)
        self._stored[id] = stored
        self.size += content.size
        self._holders.update({(owner, item): id for item in content.item_ids})
        self._expire()

    def get(self, id: str, owner: bytes | None) -> StoredResponse | None:
        self._expire()
        stored = self._stored.get(id)
        return stored if stored is not None and stored.owner == owner else None

    def item(self, id: str, owner: bytes | None) -> dict[str, Any] | None:
        """An item of a stored response."""
        stored = self.get(self._holders.get((owner, id), ""), owner)
        if stored is None:
            return None
        return next((item for item in stored.content.items() if item.get("id") == id), None)

    def remove(self, id: str, owner: bytes | None) -> bool:
        stored = self.get(id, owner)
        if stored is not None:
            self._drop(id)
        return stored is not None

    def _expire(self) -> None:
        now = self._clock()
        while self._stored:
            oldest = next(iter(self._stored.values()))
            if oldest.until > now and len(self._stored) <= self.most and self.size <= self.max_bytes:
                return
            self._drop(oldest.id)

    def _drop(self, id: str) -> None:
        stored = self._stored.pop(id)
        self.size -= stored.content.size
        for item in stored.content.item_ids:
            if self._holders.get((stored.owner, item)) == id:
                del self._holders[stored.owner, item]
