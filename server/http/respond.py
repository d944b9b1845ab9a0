"""A job's response: a stream, or all of it at once."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from server.chat.parser import ParsedOutput, merge_parsed
from server.http.json_route import Bytes
from server.http.sse import Answer, EventStream, Format, while_connected

if TYPE_CHECKING:
    from fastapi import Request, Response

    from server.api.common.content_blocks import BlockFormat
    from server.generation.job import Job
    from server.generation.output_processor import Piece


async def respond(request: Request, job: Job, format: Format) -> Response:
    if job.stream:
        return EventStream(job, format)
    answers = await while_connected(request.receive, collect(job))

    def body() -> Bytes:
        return Bytes(msgspec.json.encode(format.whole(answers)))

    shown = sum(len(answer.shown) for answer in answers)
    return body() if shown < 256 else await job.state.in_thread(body)


async def collect(job: Job) -> list[Answer]:
    """Run the job to its end: its choices that the client is to see."""
    pieces: dict[int, list[Piece]] = {choice.index: [] for choice in job.choices}
    async with aclosing(job.events()) as events:
        async for choice, piece in events:
            pieces[choice.index].append(piece)
    answers = []
    for choice in job.choices:
        mine = pieces[choice.index]
        text = "".join(piece.text for piece in mine)
        parts = ParsedOutput(text) if choice.parser is None else merge_parsed(piece.parts for piece in mine)
        answers.append(Answer(choice, text, parts, [shown for piece in mine for shown in piece.tokens]))
    return job.best(answers)


async def respond_in_blocks(request: Request, job: Job, format: BlockFormat) -> Response:
    """The same for APIs whose answers are blocks: streamed or not, the format makes them of the pieces."""
    if job.stream:
        return EventStream(job, format)

    async def run() -> None:
        async with aclosing(job.events()) as events:
            async for choice, piece in events:
                format.delta(choice, piece)
                if choice.finish is not None:
                    format.finish(choice, last=True)

    await while_connected(request.receive, run())
    return Bytes(msgspec.json.encode(format.whole(())))
