"""Responses that are generated while no client waits, and fetched from the store later."""

from __future__ import annotations

import asyncio
import logging

from server.api.common.requests.json_reader import wrong
from server.api.openai.responses.formatter import ResponseFormatter
from server.errors import ApiError, internal_error
from server.http.sse import run


def start(formatter: ResponseFormatter) -> None:
    """Begin to generate a response. Raises ApiError if it cannot be queued, or could not be stored.

    However it ends, it is stored: also when it fails, is cancelled, or is ended with the server.
    """
    if not formatter.can_be_stored:
        raise wrong("background", "the store is too small for any response (--responses-max-bytes)")
    formatter.job.ensure_room()
    task = formatter.task = asyncio.create_task(_generate(formatter))
    tasks = formatter.job.context.state.background
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(lambda task: _ended(formatter, task))


async def _generate(formatter: ResponseFormatter) -> None:
    formatter.whole(await run(formatter))


def _ended(formatter: ResponseFormatter, task: asyncio.Task[None]) -> None:
    """Also of a task that was cancelled before it began."""
    formatter.task = None
    if task.cancelled():
        formatter.cut("cancelled")
        return
    error = task.exception()
    if error is None:
        return
    if not isinstance(error, ApiError):
        request_id = formatter.job.context.record.id
        logging.getLogger("ggserve").error("request %s failed", request_id, exc_info=error)
        error = internal_error(request_id)
    formatter.cut("cancelled" if error.code == "request_cancelled" else "failed", error.message)


async def cancel(task: asyncio.Task[None]) -> None:
    """The response has ended, and is stored, when this returns."""
    task.cancel()
    await asyncio.wait([task])
