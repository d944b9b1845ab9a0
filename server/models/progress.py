"""Progress of a download."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """status: what is being done. name: of the file. done, total: bytes of it; total is 0 if unknown.

    digest: the file's sha256 in hexadecimal, if known.
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
    """A report function that does nothing."""


class Ended(Exception):
    """Raised by a report function to end work that is no longer wanted."""


async def in_background(work: Callable[[Report], object]) -> AsyncGenerator[Progress, None]:
    """Yield what `work`, running in a separate thread, reports, and raise what it raises.

    Closing the generator ends the work at its next report, without waiting for it.
    """
    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[Progress | Exception | None] = asyncio.Queue()
    ended = threading.Event()

    def put(item: Progress | Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program has ended
            loop.call_soon_threadsafe(reports.put_nowait, item)

    def report(progress: Progress) -> None:
        if ended.is_set():
            raise Ended
        put(progress)

    def run() -> None:
        try:
            work(report)
            put(None)
        except Exception as error:
            put(error)

    threading.Thread(target=run, name="pull", daemon=True).start()
    try:
        while (item := await reports.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        ended.set()
