"""A job's response: a stream, or all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from server.routes.base import Bytes
from server.sse import EventStream, Format, while_connected

if TYPE_CHECKING:
    from fastapi import Request, Response

    from server.choice import Choice, Shown
    from server.generation import Job

Collected = dict[int, tuple[str, list["Shown"]]]


async def respond(
    request: Request,
    job: Job,
    format: Format,
    whole: Callable[[Choice, str, list[Shown]], dict[str, Any]],
) -> Response:
    """`whole` makes one choice of the response that is not streamed."""
    if job.stream:
        return EventStream(job, format)
    texts = await while_connected(request.receive, collect(job))

    def body() -> Bytes:
        choices = [whole(choice, *texts[choice.index]) for choice in job.choices]
        return Bytes(
            msgspec.json.encode({**format.head(), "choices": choices, "usage": job.usage(), **job.tail()})
        )

    shown = sum(len(tokens) for _, tokens in texts.values())
    return body() if shown < 256 else await job.state.in_thread(body)


async def collect(job: Job) -> Collected:
    """Run the job to its end."""
    parts: dict[int, tuple[list[str], list[Shown]]] = {choice.index: ([], []) for choice in job.choices}
    async with aclosing(job.events()) as events:
        async for choice, piece in events:
            texts, tokens = parts[choice.index]
            texts.append(piece.text)
            tokens += piece.tokens
    return {index: ("".join(texts), tokens) for index, (texts, tokens) in parts.items()}
