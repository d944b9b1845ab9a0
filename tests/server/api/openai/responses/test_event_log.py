"""Reading a log while it grows."""

from __future__ import annotations

import asyncio

import pytest

from server.api.openai.responses.event_log import KEEP_ALIVE, EventLog

pytestmark = pytest.mark.asyncio


async def read(log, after=-1, keep_alive_s=60):
    return [data async for data in log.read(after, keep_alive_s)]


async def test_readers_get_past_and_future_events_until_the_end():
    log = EventLog()
    log.add(b"0")
    log.add(b"1")
    readers = [asyncio.create_task(read(log, after)) for after in (-1, 0, 5)]
    for event in (b"2", b"3"):
        await asyncio.sleep(0.01)
        log.add(event)
    log.end()
    assert [b"".join(await reader) for reader in readers] == [b"0123", b"123", b""]
    assert log.size == 4


async def test_waiting_reader_gets_comments():
    log = EventLog()
    reading = log.read(-1, 0.001)
    assert [await anext(reading), await anext(reading)] == [KEEP_ALIVE, KEEP_ALIVE]
    log.add(b"0")
    assert await anext(reading) == b"0"
    log.end()
    assert await read(log) == [b"0"]
