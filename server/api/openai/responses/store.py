"""Responses stored in memory for clients that refer to them, with limits on time, number and size."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec

from server.api.openai.responses.event_log import EventLog
from server.errors import ApiError

F = TypeVar("F")
_SEAL = "ggserve:"


class Stored(Protocol):
    """owner: the name of the client; no other client sees the entry. until: expiry, by the store's clock."""

    until: float

    @property
    def id(self) -> str: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def size(self) -> int:
        """Size in bytes."""


S = TypeVar("S", bound=Stored)


class BoundedStore(Generic[S]):
    """The newest `most` entries, each for `ttl_s` seconds, with `max_bytes` in total."""

    def __init__(
        self, most: int, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.ttl_s, self.max_bytes = most, ttl_s, max_bytes
        self.size = 0
        self._clock = clock
        self._stored: dict[str, S] = {}  # those that expire first are first

    def __len__(self) -> int:
        return len(self._stored)

    def get(self, id: str, owner: str | None) -> S | None:
        """The entry, if it belongs to this client."""
        self._expire()
        stored = self._stored.get(id)
        return stored if stored is not None and stored.owner == owner else None

    def remove(self, entry: S) -> None:
        del self._stored[entry.id]
        self.size -= entry.size

    def _renew(self, entry: S) -> None:
        """Make the entry the newest."""
        entry.until = self._clock() + self.ttl_s
        self._stored.pop(entry.id, None)
        self._stored[entry.id] = entry

    def _expire(self) -> None:
        now = self._clock()
        while self._stored:
            oldest = next(iter(self._stored.values()))
            if oldest.until > now and len(self._stored) <= self.most and self.size <= self.max_bytes:
                return
            self.remove(oldest)


@dataclass(frozen=True)
class StoredContent:
    """A response and its conversation as JSON: all input items, then the output items."""

    response: bytes
    conversation: bytes
    n_input: int  # items at the beginning of `conversation`
    item_ids: tuple[str, ...]  # those that no earlier response has
    log: EventLog | None = None  # where the response was streamed in the background
    n_event_bytes: int = 0  # of its events

    @property
    def size(self) -> int:
        return len(self.response) + len(self.conversation) + self.n_event_bytes

    def items(self) -> list[dict[str, Any]]:
        """The items of the conversation."""
        items: list[dict[str, Any]] = msgspec.json.decode(self.conversation)
        return items


@dataclass(eq=False)
class StoredResponse:
    id: str
    owner: str | None
    content: StoredContent
    until: float = 0.0

    @property
    def size(self) -> int:
        return self.content.size


class ResponseStore(BoundedStore[StoredResponse], Generic[F]):
    """running: responses that are still being generated, by id, as their route needs them."""

    def __init__(self, *limits: Any) -> None:
        super().__init__(*limits)
        self.running: WeakValueDictionary[str, F] = WeakValueDictionary()
        self._holders: dict[tuple[str | None, str], str] = {}  # owner, item id → the response that has it

    def fits(self, content: StoredContent) -> bool:
        """Whether a response of this size can be stored at all."""
        return self.most > 0 and content.size <= self.max_bytes

    def put(self, id: str, owner: str | None, content: StoredContent) -> None:
        """Store a response that fits, removing older ones if necessary."""
        self.size += content.size
        self._holders.update({(owner, item): id for item in content.item_ids})
        self._renew(StoredResponse(id, owner, content))
        self._expire()

    def item(self, id: str, owner: str | None) -> dict[str, Any] | None:
        """An item of a stored response."""
        stored = self.get(self._holders.get((owner, id), ""), owner)
        if stored is None:
            return None
        return next((item for item in stored.content.items() if item.get("id") == id), None)

    def remove(self, entry: StoredResponse) -> None:
        super().remove(entry)
        for item in entry.content.item_ids:
            if self._holders.get((entry.owner, item)) == entry.id:
                del self._holders[entry.owner, item]


def not_stored(id: str, param: str) -> ApiError:
    message = f"{param}: no response {id[:128]!r} is stored; it may have expired"
    return ApiError(404, message, param=param, code="response_not_found")


def sealed(text: str) -> str:
    """Reasoning as `encrypted_content`, for clients that send back nothing else of it. It is not a secret."""
    return _SEAL + base64.b64encode(text.encode()).decode()


def unsealed(text: str) -> str | None:
    if not text.startswith(_SEAL):
        return None
    try:
        return base64.b64decode(text.removeprefix(_SEAL), validate=True).decode()
    except ValueError:
        return None
