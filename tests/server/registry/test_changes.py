"""Waking those who wait for a model to change."""

from __future__ import annotations

import asyncio

import pytest

from server.registry.changes import Changes

pytestmark = pytest.mark.asyncio


async def test_everyone_who_waits_is_woken_once():
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    changes.notify()
    await asyncio.gather(*waiting)
    later = asyncio.create_task(changes.wait())
    await asyncio.sleep(0)
    assert not later.done()
    changes.notify()
    await later


async def test_waiting_ends_with_its_time():
    await Changes().wait(0.0)
