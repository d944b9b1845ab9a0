"""Requests for a model that is not loaded: they wait until it is, and are then handled as usual.

Comments can keep a stream open meanwhile. It begins with status 200 if loading takes longer than one
keep-alive interval; any later error becomes an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from server.errors import ApiError, ClientLeft, error_format, internal_error, overloaded
from server.generation.request_context import PendingModel, load_error, record_of
from server.http.sse import STREAM_HEADERS, time_limit, time_ran_out, while_connected
from server.registry.registry import ModelRegistry
from server.registry.served_model import Lease
from server.worker.errors import LoadFailed, QueueFull

log = logging.getLogger("ggserve")
Handler = Callable[[Request], Awaitable[Response]]


async def handle_when_loaded(
    request: Request, pending: PendingModel, handler: Handler, *, streams: bool, timeout_ms: float | None
) -> Response:
    """The response of `handler`, called once the model is loaded. Raises ApiError."""
    state = request.app.state.ggserve
    loading = _Loading(pending, state.registry, state.settings.request_timeout_s, timeout_ms)
    if streams:
        return _StreamAfterLoad(request, loading, handler, state.settings.keep_alive_s)
    await while_connected(request.receive, loading.finish(request.scope))
    return await handler(request)


class _Loading:
    """A request's wait for its model, within the request's time limit."""

    def __init__(
        self, pending: PendingModel, registry: ModelRegistry, limit_s: float | None, timeout_ms: float | None
    ) -> None:
        self._model, self._n_places, self._registry = pending.model, pending.n_places, registry
        self._limit_s, self._param = time_limit(limit_s, timeout_ms)

    async def finish(self, scope: Scope) -> None:
        """Returns when the model is loaded; it stays loaded until the request has ended."""
        record = record_of(scope)
        record.model, began = self._model.name, time.monotonic()
        try:
            async with asyncio.timeout(self._limit_s):
                lease: Lease = await self._registry.wait(self._model, self._n_places)
            record.leases.append(lease)
        except TimeoutError:
            raise time_ran_out(self._param) from None
        except QueueFull as error:
            raise overloaded(self._model.name, error.retry_after_s) from None
        except LoadFailed as failure:
            raise load_error(self._model, failure) from None
        finally:
            record.load_ms = round((time.monotonic() - began) * 1000, 1)

    def comment(self) -> str:
        return f"loading {self._model.name} {self._model.progress:.0%}"


class _StreamAfterLoad(Response):
    """Sends comments until the model is loaded, and then what the handler's response sends."""

    def __init__(self, request: Request, loading: _Loading, handler: Handler, keep_alive_s: float) -> None:
        self._request, self._loading, self._handler = request, loading, handler
        self._keep_alive_s = keep_alive_s
        self.background = None
        self.status_code = 200
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        format = error_format(scope)

        async def write(data: bytes, last: bool = False) -> None:
            if not self._started:
                self._started = True
                headers = [(b"content-type", format.stream.media_type), *STREAM_HEADERS]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": not last})

        async def send_rest(message: Message) -> None:
            if message["type"] != "http.response.start" or not self._started:
                await send(message)

        try:
            await while_connected(receive, self._wait(scope, write, format.stream.keep_alive))
            response = await self._handle(record_of(scope).id)
            await response(scope, receive, send_rest)
        except ApiError as error:
            record = record_of(scope)
            record.error = record.error or error.code
            if not self._started:
                raise
            record.status = error.status_code
            if not isinstance(error, ClientLeft):
                await write(format.stream.error(format.body(error, record.id)), last=True)

    async def _handle(self, request_id: str) -> Response:
        try:
            return await self._handler(self._request)
        except ApiError:
            raise
        except Exception as error:
            if not self._started:
                raise
            log.exception("request %s failed", request_id)
            raise internal_error(request_id) from error

    async def _wait(
        self, scope: Scope, write: Callable[[bytes], Any], keep_alive: Callable[[str], bytes]
    ) -> None:
        load = asyncio.create_task(self._loading.finish(scope))
        try:
            while not (await asyncio.wait([load], timeout=self._keep_alive_s))[0]:
                await write(keep_alive(self._loading.comment()))
            load.result()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
