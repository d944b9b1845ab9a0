"""Wakes those who wait for a model to change."""

from __future__ import annotations

import asyncio
import contextlib


class Changes:
    """Every `notify` wakes everyone who waits at that moment."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until the next change, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._next.wait(), timeout_s)
