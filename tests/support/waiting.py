"""Waiting for what must happen, however loaded the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 60.0


async def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Return once `condition()` is true; fail when it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[object]], seconds: float = PATIENCE_S) -> None:
    """As `until`, with a condition that is awaited."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """As `until`, outside of an event loop."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
