"""Work of an engine on behalf of a request: time limits, clients that leave, and errors as they see them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from server.errors import ApiError, bad_request, internal_error, overloaded
from server.generation.job import unavailable
from server.http.sse import while_connected
from server.worker.errors import EngineUnavailable, QueueFull, TaskFailed

if TYPE_CHECKING:
    from fastapi import Request

    from engine.tasks.types import Task
    from server.dependencies import Engine, State
    from server.http.middleware.access_log import Record

R = TypeVar("R")
log = logging.getLogger("ggserve")


async def within_limits(
    request: Request, state: State, timeout_ms: int | None, work: Coroutine[Any, Any, R]
) -> R:
    """Run `work` until the client leaves or the time is up."""
    limit_s = state.settings.request_timeout_s
    if timeout_ms is not None:
        limit_s = min(limit_s or timeout_ms / 1000, timeout_ms / 1000)
    try:
        async with asyncio.timeout(limit_s):
            return await while_connected(request.receive, work)
    except TimeoutError:
        message = "timeout_ms: the time was up before the answer was there"
        raise ApiError(503, message, param="timeout_ms", code="timeout", retry=False) from None


async def run(work: Task[R], engine: Engine, state: State, record: Record, param: str) -> R:
    """Have the engine do it. `param`: the field at fault if it refuses."""
    record.model = engine.name
    try:
        return await engine.run(work)
    except QueueFull as error:
        state.metrics.of(engine.name).rejected()
        raise overloaded(engine.name, error.retry_after_s) from error
    except EngineUnavailable as error:
        raise unavailable(engine) from error
    except TaskFailed as error:
        record.error = f"{error.kind}: {error}"[:500]
        if error.kind in ("ConfigError", "ModelError"):
            raise bad_request(f"{param}: {error}", param, "invalid_value") from error
        if error.kind == "OutOfMemoryError":
            message = "there is too little memory for this request at the moment; try again later"
            raise ApiError(503, message, code="out_of_memory", retry_after=5) from error
        if error.kind == "StorageError":
            raise ApiError(500, str(error), code="not_written", retry=False) from error
        log.error("request %s: %s: %s", record.id, error.kind, error)
        failure = internal_error(record.id)
        failure.headers = {"x-should-retry": "false"}  # the same would likely fail again
        raise failure from error
