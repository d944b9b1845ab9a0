"""Server-sent events of a job, with real statuses for early errors and comments while there is no news."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from starlette.responses import Response

from server.errors import ApiError, ClientLeft, internal_error

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from server.chat.parser import ParsedOutput
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Progress, Shown

T = TypeVar("T")
encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies: do not collect
]


def chunk(value: object) -> bytes:
    """One event."""
    return b"data: " + encode(value) + b"\n\n"


class Answer(NamedTuple):
    """A whole choice: its text as it came, the parts of it, its tokens if they are asked for."""

    choice: Choice
    text: str
    parts: ParsedOutput
    shown: list[Shown]


class Format(ABC):
    """How one API tells of a job: events of a stream (empty: none), or one body."""

    job: Job

    def start(self) -> bytes:
        """Before everything else."""
        return b""

    def first(self, choice: Choice) -> bytes:
        """Before a choice's first piece."""
        return b""

    def progress(self, choice: Choice, progress: Progress) -> bytes:
        """How far a choice's prompt is."""
        return b""

    @abstractmethod
    def delta(self, choice: Choice, piece: Piece) -> bytes:
        """News of a choice."""

    @abstractmethod
    def finish(self, choice: Choice, last: bool) -> bytes:
        """The end of a choice. `last`: of the job as well."""

    def end(self) -> bytes:
        """The end of the stream."""
        return DONE

    def keep_alive(self) -> bytes:
        """While there is no news: a comment, which clients take for nothing."""
        return f": keep-alive, {self.job.progress()}\n\n".encode()

    def error(self, error: ApiError) -> bytes:
        """What went wrong after the status line: it ends the stream."""
        return chunk(error.body()) + DONE

    @abstractmethod
    def whole(self, answers: Sequence[Answer]) -> Any:
        """The body of a response that is not streamed."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; if the client closes the connection first, cancel it and raise ClientLeft."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """The response. The first event is awaited before the status line, but not longer than a keep-alive."""

    def __init__(self, job: Job, format: Format) -> None:
        self.job, self.format = job, format
        self.keep_alive_s = job.state.settings.keep_alive_s
        self.background = None
        self.status_code = 200
        self._started = self._writing = False
        self._last = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self._time = asyncio.get_running_loop().time
        self._last = self._time()
        record = self.job.record
        try:
            await while_connected(receive, self._run())
        except ApiError as error:
            record.error = record.error or error.code
            if not self._started:
                raise  # becomes a response with its own status
            record.status = error.status_code
            if isinstance(error, ClientLeft):
                return
            await self._write(self.format.error(error), last=True)

    async def _run(self) -> None:
        ticker = asyncio.create_task(self._tick())
        try:
            await self._stream()
        except ApiError:
            raise
        except Exception as error:
            logging.getLogger("ggserve").exception("request %s failed", self.job.record.id)
            raise internal_error(self.job.record.id) from error
        finally:
            ticker.cancel()

    async def _stream(self) -> None:
        job, format = self.job, self.format
        begun: set[int] = set()
        left = len(job.choices)
        start = format.start()
        async with aclosing(job.events()) as events:
            async for choice, piece in events:
                data, start = start, b""
                if choice.index not in begun:
                    begun.add(choice.index)
                    data += format.first(choice)
                for progress in piece.progress:
                    data += format.progress(choice, progress)
                if piece.parts or piece.tokens:
                    data += format.delta(choice, piece)
                if choice.finish is not None:
                    left -= 1
                    data += format.finish(choice, last=not left)
                    if not left:
                        break
                if data:
                    await self._write(data)
        # The job is closed before the end is told, so that a client that counts finds nothing running.
        await self._write(data + format.end(), last=True)

    async def _write(self, data: bytes, last: bool = False) -> None:
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        self._writing = True  # for as long as the client does not read, which the connection bounds
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self._last = self._time()
        self._writing = False

    async def _tick(self) -> None:
        """Signs of life while nothing else is sent."""
        while True:
            left = self._last + self.keep_alive_s - self._time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._writing:
                await asyncio.sleep(self.keep_alive_s)
            else:
                await self._write(self.format.keep_alive())
