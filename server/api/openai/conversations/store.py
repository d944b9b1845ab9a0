"""Conversations in memory, with the same limits on time, number and size as stored responses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.api.openai.responses.store import BoundedStore

Item = dict[str, Any]


@dataclass(eq=False)
class StoredConversation:
    """entries: items as JSON by id, oldest first."""

    id: str
    owner: str | None
    created: int  # Unix time
    metadata: dict[str, str]
    until: float = 0.0
    entries: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Size in bytes."""
        pairs = sum(len(key) + len(value) for key, value in self.metadata.items())
        return pairs + sum(map(len, self.entries.values()))

    def items(self) -> list[Item]:
        return [msgspec.json.decode(entry) for entry in self.entries.values()]

    def item(self, id: str) -> Item | None:
        entry = self.entries.get(id)
        return None if entry is None else msgspec.json.decode(entry)


class ConversationStore(BoundedStore[StoredConversation]):
    """The least recently used conversations are removed first."""

    def get(self, id: str, owner: str | None) -> StoredConversation | None:
        """The client's conversation with this id; this counts as a use."""
        conversation = super().get(id, owner)
        if conversation is not None:
            self._renew(conversation)
        return conversation

    def update(
        self,
        conversation: StoredConversation,
        items: Iterable[Item] = (),
        metadata: dict[str, str] | None = None,
    ) -> bool:
        """Store a conversation or its new items, removing others if necessary. False: it is too large on its
        own.

        An item replaces one with the same id.
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
        self._renew(conversation)
        self._expire()
        return True

    def holds(self, conversation: StoredConversation) -> bool:
        """Whether the conversation is still stored."""
        return self._stored.get(conversation.id) is conversation

    def remove_item(self, conversation: StoredConversation, id: str) -> None:
        self.size -= len(conversation.entries.pop(id))
