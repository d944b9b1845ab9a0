"""Wakes those who wait for a model to change."""

from __future__ import annotations

import asyncio
import contextlib


class Changes:
    """Every `notify` wakes everyone who waits at that moment. n_waiting: how many do."""

    def __init__(self) -> None:
        self.n_waiting = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until the next change, or the time is over."""
        self.n_waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._next.wait(), timeout_s)
        finally:
            self.n_waiting -= 1
