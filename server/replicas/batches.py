"""Joins a stream's outputs into fewer frames, since each frame costs processor time on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from engine.types import StepOutput


async def batches(
    outputs: AsyncIterator[StepOutput], interval_s: float
) -> AsyncGenerator[list[StepOutput], None]:
    """The first and the last output at once, the others at most `interval_s` after those before.

    outputs: can be awaited again after a wait was cancelled, like a `Stream`.
    """
    pending: list[StepOutput] = []
    due = 0.0
    while True:
        if pending and (pending[-1].finish is not None or time.monotonic() >= due):
            yield pending
            pending, due = [], time.monotonic() + interval_s
        try:
            async with asyncio.timeout(due - time.monotonic() if pending else None):
                pending.append(await anext(outputs))
        except TimeoutError:
            continue
        except StopAsyncIteration:
            break
        except Exception:
            if pending:
                yield pending
            raise
    if pending:
        yield pending
