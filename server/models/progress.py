"""How far a download is."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

STOP_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """status: what is being done. name: of the file. done, total: bytes of it; total is 0 if unknown.

    digest: the file's sha256 in hexadecimal, where it is known.
    """

    status: str
    name: str
    done: int = 0
    total: int = 0
    digest: str | None = None

    @property
    def fraction(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def sizes(self) -> str:
        return f"{size_text(self.done)} of {size_text(self.total)}" if self.total else ""

    def __str__(self) -> str:
        return f"{self.status} {self.name}" + (f": {self.sizes}" if self.sizes else "")


def size_text(n_bytes: float) -> str:
    """In MB or GB."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """A report to nobody."""


class Ended(Exception):
    """Raised by a report to end work that is not wanted any longer."""


def stream(work: Callable[[Report], T]) -> Generator[Progress, None, T]:
    """Yield what `work` reports from a thread of its own; returns what it returns, raises what it raises.

    Leaving the iterator ends the work at its next report.
    """
    reports: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
    ended = threading.Event()
    result: list[T] = []
    problem: list[Exception] = []

    def report(progress: Progress) -> None:
        if ended.is_set():
            raise Ended
        reports.put(progress)

    def run() -> None:
        try:
            result.append(work(report))
        except Exception as error:
            problem.append(error)
        reports.put(None)

    thread = threading.Thread(target=run, name="download", daemon=True)
    thread.start()
    try:
        while (progress := reports.get()) is not None:
            yield progress
    finally:
        ended.set()
        thread.join(STOP_S)
    if problem:
        raise problem[0]
    return result[0]


async def in_background(steps: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """What an iterator yields in a thread of its own. Closing this ends that, at its next step."""
    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue()
    ended = threading.Event()

    def report(item: tuple[T] | Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program has ended
            loop.call_soon_threadsafe(reports.put_nowait, item)

    def run() -> None:
        try:
            for step in steps():
                if ended.is_set():
                    return  # collects the iterator, which ends the download
                report((step,))
            report(None)
        except Exception as error:
            report(error)

    threading.Thread(target=run, name="pull", daemon=True).start()
    try:
        while (item := await reports.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item[0]
    finally:
        ended.set()
