"""Iterators in threads of their own: what they yield and raise, and that they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from server.models.progress import in_background
from support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_steps_come_in_order_from_another_thread():
    def steps() -> Iterator[int]:
        assert threading.current_thread() is not threading.main_thread()
        yield from range(3)

    assert [step async for step in in_background(steps)] == [0, 1, 2]


async def test_error_comes_after_the_steps_before_it():
    def steps() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = in_background(steps)
    assert await anext(found) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(found)


async def test_closing_ends_the_iterator_at_its_next_step_without_waiting_for_it():
    ended, goes_on = threading.Event(), threading.Event()

    def steps() -> Iterator[int]:
        try:
            yield 1
            goes_on.wait()
            yield 2
            raise AssertionError("a step too many")
        finally:
            ended.set()

    async with aclosing(in_background(steps)) as found:
        assert await anext(found) == 1
    assert not ended.is_set()
    goes_on.set()
    await until(ended.is_set)


async def test_loop_runs_while_a_step_takes_its_time():
    goes_on = threading.Event()

    def steps() -> Iterator[bool]:
        yield goes_on.wait(timeout=60)

    asyncio.get_running_loop().call_soon(goes_on.set)
    assert [step async for step in in_background(steps)] == [True]
