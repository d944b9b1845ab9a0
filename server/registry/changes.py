"""Wakes tasks that wait for a model to change."""

from __future__ import annotations

import asyncio
import contextlib


class Changes:
    """Each `notify` wakes every task that is waiting at that moment.

    n_waiting: the number of waiting tasks.
    """

    def __init__(self) -> None:
        self.n_waiting = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the next change, or until the time is up."""
        self.n_waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._next.wait(), timeout_s)
        finally:
            self.n_waiting -= 1
