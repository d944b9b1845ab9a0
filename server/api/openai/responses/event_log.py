"""The events of a background response, for clients that connect, disconnect and reconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

KEEP_ALIVE = b": keep-alive\n\n"


class EventLog:
    """All events so far, by sequence number."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self._ended = False
        self._news = asyncio.Event()  # another one for each piece of news

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(map(len, self.events))

    def add(self, event: bytes) -> None:
        self.events.append(event)
        self._tell()

    def end(self) -> None:
        """Mark the log as complete."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, after: int, keep_alive_s: float) -> AsyncGenerator[bytes, None]:
        """The events with a number greater than `after`, as they arrive, with comments in between."""
        next_number = after + 1
        while True:
            data = b"".join(self.events[next_number:])
            next_number = max(next_number, len(self.events))
            if data:
                yield data
            elif self._ended:
                return
            else:
                try:
                    await asyncio.wait_for(self._news.wait(), keep_alive_s)
                except TimeoutError:
                    yield KEEP_ALIVE
