"""Responses that are generated in the background and fetched from the store later."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from server.api.openai.responses.formatter import ResponseFormatter
from server.errors import ApiError, internal_error, wrong
from server.http.sse import pieces

_CANCELLED = ApiError(499, "the request was cancelled", code="request_cancelled")


def start(formatter: ResponseFormatter) -> None:
    """Begin to generate a response. Raises ApiError if it cannot be queued, or could not be stored.

    It is stored however it ends: complete, failed, cancelled, or ended by a shutdown.
    """
    if not formatter.can_be_stored:
        raise wrong("background", "the store is too small for any response (--responses-max-bytes)")
    formatter.job.ensure_room()
    registry = formatter.job.context.state.registry
    lease = registry.again(formatter.job.context.lease)  # the request ends before
    usage = formatter.job.context.client.usage
    usage.enter()
    task = formatter.task = asyncio.create_task(_generate(formatter))
    task.add_done_callback(lambda task: registry.release(lease))
    tasks = formatter.job.context.state.background
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(lambda _: usage.leave())
    task.add_done_callback(lambda task: _ended(formatter, task))


async def _generate(formatter: ResponseFormatter) -> None:
    if formatter.log is None:
        formatter.keep(formatter.whole(await formatter.job.run(formatter.collect)))
        return
    formatter.queue()
    async with aclosing(pieces(formatter)) as parts:
        async for _ in parts:  # the formatter logs its events
            pass


def _ended(formatter: ResponseFormatter, task: asyncio.Task[None]) -> None:
    """Finish a response when its task ends; this includes a task that was cancelled before it began."""
    formatter.task = None
    error = _CANCELLED if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ApiError):
        request_id = formatter.job.context.record.id
        logging.getLogger("ggserve").error("request %s failed", request_id, exc_info=error)
        error = internal_error(request_id)
    if error is not None:
        formatter.cut("cancelled" if error.code == _CANCELLED.code else "failed", error.message)
    if formatter.log is not None:
        if error is not None:
            formatter.error(error)
        formatter.log.end()


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel the response. It has ended and is stored when this returns."""
    task.cancel()
    await asyncio.wait([task])
