"""Work in a thread of its own: what it reports and raises, and that it ends."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

from server.models.progress import Ended, Progress, Report, in_background
from support.waiting import until

pytestmark = pytest.mark.asyncio


def step(n: int) -> Progress:
    return Progress("downloading", "x.gguf", n, 3)


async def test_reports_come_in_order_from_another_thread():
    def work(report: Report) -> None:
        assert threading.current_thread() is not threading.main_thread()
        for n in range(3):
            report(step(n))

    assert [progress async for progress in in_background(work)] == [step(0), step(1), step(2)]


async def test_error_comes_after_earlier_reports():
    def work(report: Report) -> None:
        report(step(1))
        raise ValueError("broken")

    progress = in_background(work)
    assert await anext(progress) == step(1)
    with pytest.raises(ValueError, match="broken"):
        await anext(progress)


async def test_closing_ends_the_work_at_its_next_report_without_waiting():
    goes_on = threading.Event()
    ends: list[type[Exception] | None] = []

    def work(report: Report) -> None:
        report(step(1))
        goes_on.wait()
        try:
            report(step(2))
        except Exception as error:
            ends.append(type(error))
            raise
        ends.append(None)

    async with aclosing(in_background(work)) as progress:
        assert await anext(progress) == step(1)
    assert not ends
    goes_on.set()
    await until(lambda: ends == [Ended])


async def test_event_loop_runs_during_the_work():
    goes_on = threading.Event()

    def work(report: Report) -> None:
        report(step(int(goes_on.wait(timeout=60))))

    asyncio.get_running_loop().call_soon(goes_on.set)
    assert [progress async for progress in in_background(work)] == [step(1)]
