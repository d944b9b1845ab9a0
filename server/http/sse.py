"""Job responses: streams, mostly of server-sent events, or a single body; and work that ends when its client
disconnects.

Errors before the first event get their own status; comments keep the connection alive while there is nothing
to send.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, TypeVar

import msgspec
from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from server.chat.output import OutputDelta, PromptProgress
from server.errors import NEVER, ApiError, ClientLeft, ErrorFormat, StreamFormat, internal_error
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceOutput
from server.generation.request_context import RequestContext
from server.http.json_reply import Bytes

T = TypeVar("T")

STREAM_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies: do not buffer
]
_INLINE_TOKENS = 256  # tokens up to which a body is encoded in the event loop


class JobFormatter(ABC):
    """Formats one job in one API's format: as bytes of a stream (empty: nothing to send), or as one body.

    errors: how the API formats errors, and what a stream sends while it has no output.
    """

    errors: ClassVar[ErrorFormat]
    job: Job

    def start(self, sequence: OutputSequence) -> bytes:
        """Called before a sequence's first delta."""
        return b""

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        """The prefill progress of a sequence."""
        return b""

    @abstractmethod
    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        """New text or tokens of a sequence."""

    @abstractmethod
    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        """The end of a sequence. last: it is also the end of the job."""

    def end(self) -> bytes:
        """The end of the stream, after the end of the last sequence."""
        return b""

    def error(self, error: ApiError) -> bytes:
        """An error after the status line; it ends the stream."""
        return self.errors.stream.error(self.errors.body(error, self.job.context.record.id))

    def keep_alive(self) -> bytes:
        """Sent while there is no output; clients ignore it."""
        return self.errors.stream.keep_alive(self.job.progress())

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        """The same updates for a response that is not streamed, for formats that depend on their order."""
        return

    @abstractmethod
    def whole(self, results: Sequence[SequenceOutput]) -> Any:
        """The body of a response that is not streamed, for JSON. Built in a thread if it is large."""

    def keep(self, body: Any) -> None:
        """Store that body. Called in the event loop, before the body is sent."""
        return


async def respond(request: Request, formatter: JobFormatter) -> Response:
    """Run the formatter's job: as a stream if the request asks for one."""
    job = formatter.job
    if job.options.stream:
        return EventStream(formatter)
    results = await while_connected(request.receive, job.run(formatter.collect))
    n_tokens = sum(len(output.tokens) for _, output in results)
    for sequence, _ in results:
        if scored := job.prompt_scores.get(sequence.prompt_index):
            n_tokens += len(scored.tokens)
    if n_tokens < _INLINE_TOKENS:
        body = formatter.whole(results)
        formatter.keep(body)
        return Bytes(msgspec.json.encode(body))
    body = await job.context.in_thread(formatter.whole, results)
    formatter.keep(body)
    return Bytes(await job.context.in_thread(msgspec.json.encode, body))


async def pieces(formatter: JobFormatter) -> AsyncGenerator[tuple[bytes, bool], None]:
    """Run the job as a stream. Yields its pieces, and whether each is the last."""
    job = formatter.job
    started: set[int] = set()
    left = len(job.sequences)
    data = b""
    async with aclosing(job.events()) as events:
        async for sequence, delta in events:
            data = b""
            if sequence.index not in started:
                started.add(sequence.index)
                data = formatter.start(sequence)
            for progress in delta.progress:
                data += formatter.progress(sequence, progress)
            if delta.content or delta.reasoning or delta.tools or delta.tokens:
                data += formatter.delta(sequence, delta)
            if sequence.end is not None:
                left -= 1
                data += formatter.finish(sequence, last=not left)
                if not left:
                    break
            if data:
                yield data, False
    # The job is over before its end is sent, so that a client that counts finds nothing running.
    yield data + formatter.end(), True


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`. If the client closes the connection first, cancel it and raise ClientLeft."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def within_limits(
    receive: Receive, context: RequestContext, timeout_ms: int | None, work: Coroutine[Any, Any, T]
) -> T:
    """Run `work` while the client is connected, for at most `timeout_ms` and --request-timeout-s.

    Both count from the start of the request's first wait, which was for its model to be loaded.
    """
    limit_s, param = time_limit(context.state.settings.request_timeout_s, timeout_ms)
    if limit_s is not None:
        limit_s -= (context.record.load_ms or 0.0) / 1000
    try:
        async with asyncio.timeout(limit_s):
            return await while_connected(receive, work)
    except TimeoutError:
        raise time_ran_out(param) from None


def time_limit(server_s: float | None, timeout_ms: float | None) -> tuple[float | None, str | None]:
    """The lesser of the server's limit and the request's, in seconds, and the request's field if that one is
    smaller.
    """
    if timeout_ms is not None and (server_s is None or timeout_ms / 1000 <= server_s):
        return timeout_ms / 1000, "timeout_ms"
    return server_s, None


def time_ran_out(param: str | None) -> ApiError:
    """param: the field that set the limit; None: the server's own limit."""
    message = "the time limit expired before the response was ready"
    message = f"{param}: {message}" if param else f"{message} (--request-timeout-s)"
    return ApiError(503, message, param=param, code="timeout", retry_after=NEVER)


class EventStream(Response):
    """A streamed response. The first event is awaited before the status line, for one keep-alive at most."""

    def __init__(self, formatter: JobFormatter) -> None:
        self.formatter, self.job = formatter, formatter.job
        self.keep_alive_s = self.job.context.state.settings.keep_alive_s
        self.background = None
        self.status_code = 200
        self._started = self._writing = False
        self._last = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self._time = asyncio.get_running_loop().time
        self._last = self._time()
        record = self.job.context.record
        try:
            await while_connected(receive, self._run())
        except ApiError as error:
            record.error = record.error or error.code
            if not self._started:
                raise  # becomes a response with its own status
            record.status = error.status_code
            if isinstance(error, ClientLeft):
                return
            await self._write(self.formatter.error(error), last=True)

    async def _run(self) -> None:
        ticker = asyncio.create_task(self._keep_alive())
        try:
            async with aclosing(pieces(self.formatter)) as parts:
                async for data, last in parts:
                    await self._write(data, last)
        except ApiError:
            raise
        except Exception as error:
            request_id = self.job.context.record.id
            logging.getLogger("ggserve").exception("request %s failed", request_id)
            raise internal_error(request_id) from error
        finally:
            ticker.cancel()

    async def _write(self, data: bytes, last: bool = False) -> None:
        if not self._started:
            self._started = True
            headers = [(b"content-type", self.formatter.errors.stream.media_type), *STREAM_HEADERS]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._writing = True  # for as long as the client does not read, which the connection bounds
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self._last = self._time()
        self._writing = False

    async def _keep_alive(self) -> None:
        while True:
            left = self._last + self.keep_alive_s - self._time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._writing:
                await asyncio.sleep(self.keep_alive_s)
            else:
                await self._write(self.formatter.keep_alive())


def event_stream(events: AsyncIterator[bytes]) -> Response:
    """A stream of events that do not come from a job."""
    headers = {name.decode(): value.decode() for name, value in STREAM_HEADERS}
    return StreamingResponse(events, headers=headers, media_type=StreamFormat.media_type.decode())


def event(value: Any) -> bytes:
    """One server-sent event whose data is `value` as JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
