"""Engine tasks on behalf of a request, with failures as the client sees them."""

from __future__ import annotations

import logging
from typing import TypeVar

from engine.tasks.types import Embed, Task
from server.errors import NEVER, ApiError, internal_error, overloaded, wrong
from server.generation.request_context import RequestContext, unavailable
from server.worker.errors import EngineUnavailable, QueueFull, TaskFailed

R = TypeVar("R")
log = logging.getLogger("ggserve")


async def run_task(task: Task[R], context: RequestContext, param: str) -> R:
    """Run a task and return its result. param: the field at fault if the engine refuses. Raises ApiError."""
    engine, record = context.engine, context.record
    record.model = engine.name
    context.ensure_room()
    if isinstance(task, Embed):
        context.spend_prompt(sum(map(len, task.inputs)))
    try:
        return await engine.run(task)
    except QueueFull as error:
        context.state.metrics.of(engine.name).rejected()
        raise overloaded(engine.name, error.retry_after_s) from error
    except EngineUnavailable as error:
        raise unavailable(engine) from error
    except TaskFailed as error:
        record.error = f"{error.kind}: {error}"[:500]
        if error.kind in ("ConfigError", "ModelError"):
            raise wrong(param, str(error)) from error
        if error.kind == "OutOfMemoryError":
            message = "there is too little memory for this request at the moment; try again later"
            raise ApiError(503, message, code="out_of_memory", retry_after=5) from error
        if error.kind == "StorageError":
            raise ApiError(500, str(error), code="not_written", retry_after=NEVER) from error
        log.error("request %s: %s: %s", record.id, error.kind, error)
        raise internal_error(record.id, NEVER) from error  # the same would likely fail again
