"""Conversations in memory, bounded in time, number and size like stored responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

Item = dict[str, Any]


@dataclass(eq=False)
class StoredConversation:
    """owner: digest of the API key of its client; nobody else sees it. until: by the store's clock.

    entries: items as JSON by id, oldest first.
    """

    id: str
    owner: bytes | None
    created: int  # Unix time
    metadata: dict[str, str]
    until: float = 0.0
    entries: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes."""
        pairs = sum(len(key) + len(value) for key, value in self.metadata.items())
        return pairs + sum(map(len, self.entries.values()))

    def items(self) -> list[Item]:
        return [msgspec.json.decode(entry) for entry in self.entries.values()]

    def item(self, id: str) -> Item | None:
        entry = self.entries.get(id)
        return None if entry is None else msgspec.json.decode(entry)


class ConversationStore:
    """The `most` conversations that were used last, within `ttl_s` seconds and `max_bytes` together."""

    def __init__(
        self, most: int, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.ttl_s, self.max_bytes = most, ttl_s, max_bytes
        self.size = 0
        self._clock = clock
        self._stored: dict[str, StoredConversation] = {}  # the one that was used last is last

    def __len__(self) -> int:
        return len(self._stored)

    def get(self, id: str, owner: bytes | None) -> StoredConversation | None:
        """That of this client; asking for it is a use."""
        self._expire()
        conversation = self._stored.get(id)
        if conversation is None or conversation.owner != owner:
            return None
        self._use(conversation)
        return conversation

    def update(
        self,
        conversation: StoredConversation,
        items: Iterable[Item] = (),
        metadata: dict[str, str] | None = None,
    ) -> bool:
        """Store it, or what is new of it; others make room. False: alone it would be too large.

        An item takes the place of one with the same id.
        """
        entries = {item["id"]: msgspec.json.encode(item) for item in items}
        after = StoredConversation("", None, 0, conversation.metadata if metadata is None else metadata)
        after.entries = conversation.entries | entries
        if self.most == 0 or after.size > self.max_bytes:
            return False
        if conversation.id in self._stored:
            self.size -= conversation.size
        conversation.metadata, conversation.entries = after.metadata, after.entries
        self.size += after.size
        self._use(conversation)
        self._expire()
        return True

    def holds(self, conversation: StoredConversation) -> bool:
        """Whether it is still stored."""
        return self._stored.get(conversation.id) is conversation

    def remove_item(self, conversation: StoredConversation, id: str) -> None:
        self.size -= len(conversation.entries.pop(id))

    def remove(self, conversation: StoredConversation) -> None:
        del self._stored[conversation.id]
        self.size -= conversation.size

    def _use(self, conversation: StoredConversation) -> None:
        conversation.until = self._clock() + self.ttl_s
        self._stored.pop(conversation.id, None)
        self._stored[conversation.id] = conversation

    def _expire(self) -> None:
        now = self._clock()
        while self._stored:
            oldest = next(iter(self._stored.values()))
            if oldest.until > now and len(self._stored) <= self.most and self.size <= self.max_bytes:
                return
            self.remove(oldest)
