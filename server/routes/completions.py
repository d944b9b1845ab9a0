"""POST /v1/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from server import convert
from server.deps import RecordDep, StateDep
from server.logprobs import completion_logprobs
from server.routes.base import json_router
from server.routes.respond import respond
from server.schemas.completions import CompletionReply, CompletionRequest
from server.sse import chunk, encode

if TYPE_CHECKING:
    from server.choice import Choice, Piece, Shown
    from server.generation import Job

router = json_router()


class CompletionFormat:
    """Chunks of a stream. What never changes is encoded once."""

    def __init__(self, job: Job, top: int | None, return_tokens: bool) -> None:
        self.job, self.top, self.return_tokens = job, top, return_tokens
        self.plain = top is None and not return_tokens
        head = b"data: " + encode(self.head())[:-1] + b',"choices":[{"index":'
        self._before = [head + b'%d,"text":' % choice.index for choice in job.choices]
        usage = b',"usage":null' if job.include_usage else b""
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def head(self) -> dict[str, Any]:
        job = self.job
        return {"id": job.id, "object": "text_completion", "created": job.created, "model": job.model}

    def first(self, choice: Choice) -> bytes:
        if not choice.prefix:
            return b""
        return self._before[choice.index] + encode(choice.prefix) + self._after

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        if self.plain:
            return self._before[choice.index] + encode(piece.text) + self._after
        return self._chunk(self._choice(choice, piece.text, piece.tokens, None))

    def finish(self, choice: Choice, tail: dict[str, Any] | None) -> bytes:
        return self._chunk(self._choice(choice, "", None, choice.finish), tail)

    def usage(self) -> bytes:
        return chunk({**self.head(), "choices": [], "usage": self.job.usage(), **self.job.tail()})

    def whole(self, choice: Choice, text: str, shown: list[Shown]) -> dict[str, Any]:
        return self._choice(choice, choice.prefix + text, shown, choice.finish)

    def _chunk(self, choice: dict[str, Any], tail: dict[str, Any] | None = None) -> bytes:
        usage = {"usage": None} if self.job.include_usage else {}
        return chunk({**self.head(), "choices": [choice], **usage, **(tail or {})})

    def _choice(
        self, choice: Choice, text: str, shown: list[Shown] | None, finish: str | None
    ) -> dict[str, Any]:
        logprobs = None
        if self.top is not None and shown is not None:
            logprobs = completion_logprobs(self.job.facts.names, shown, self.top)
        found = {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        if self.return_tokens:
            found["tokens"] = [token.id for token, _ in shown or ()]
        return found


@router.post("/v1/completions", response_model=None, responses={200: {"model": CompletionReply}})
async def completions(
    body: CompletionRequest, request: Request, state: StateDep, record: RecordDep
) -> Response:
    """Continue a prompt. With `stream` the answer comes as server-sent events that end with `[DONE]`."""
    job = await convert.completion(body, state, record)
    format = CompletionFormat(job, body.logprobs, bool(body.return_tokens))
    return await respond(request, job, format, format.whole)
