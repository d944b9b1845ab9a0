"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from server.api.common.logprobs import completion_logprobs
from server.api.common.timings import of_prompt, per_token
from server.api.openai.completions.schema import CompletionReply, CompletionRequest
from server.dependencies import RecordDep, StateDep
from server.http.json_route import json_router
from server.http.respond import respond
from server.http.sse import DONE, Answer, Format, chunk, encode
from server.input import processor

if TYPE_CHECKING:
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Progress, Shown

router = json_router()


class CompletionFormat(Format):
    """Chunks of a stream. What never changes is encoded once."""

    def __init__(self, job: Job, top: int | None, return_tokens: bool) -> None:
        self.job, self.top, self.return_tokens = job, top, return_tokens
        self.plain = top is None and not return_tokens and not job.timings_per_token
        head = b"data: " + encode(self._head())[:-1] + b',"choices":[{"index":'
        self._before = [head + b'%d,"text":' % choice.index for choice in job.choices]
        usage = b',"usage":null' if job.include_usage else b""
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def _head(self) -> dict[str, Any]:
        job = self.job
        head = {"id": job.id, "object": "text_completion", "created": job.created, "model": job.model}
        return {**head, "system_fingerprint": job.fingerprint}

    def first(self, choice: Choice) -> bytes:
        if choice.echoed:
            return self._chunk(self._choice(choice, choice.prefix, choice.echoed, None))
        if not choice.prefix:
            return b""
        return self._before[choice.index] + encode(choice.prefix) + self._after

    def progress(self, choice: Choice, progress: Progress) -> bytes:
        tail = of_prompt(progress, choice, self.job.timings_per_token)
        return self._chunk(self._choice(choice, "", None, None), tail)

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        if self.plain:
            return self._before[choice.index] + encode(piece.text) + self._after
        tail = per_token(choice) if self.job.timings_per_token else None
        return self._chunk(self._choice(choice, piece.text, piece.tokens, None), tail)

    def finish(self, choice: Choice, last: bool) -> bytes:
        return self._chunk(self._choice(choice, "", None, choice.finish), self.job.tail() if last else None)

    def end(self) -> bytes:
        job = self.job
        if not job.include_usage:
            return DONE
        return chunk({**self._head(), "choices": [], "usage": job.usage(), **job.tail()}) + DONE

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        job = self.job
        choices = [
            self._choice(c, c.prefix + text, [*c.echoed, *shown], c.finish) for c, text, _, shown in answers
        ]
        return {**self._head(), "choices": choices, "usage": job.usage(), **job.tail(answers)}

    def _chunk(self, choice: dict[str, Any], tail: dict[str, Any] | None = None) -> bytes:
        usage = {"usage": None} if self.job.include_usage else {}
        return chunk({**self._head(), "choices": [choice], **usage, **(tail or {})})

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
    job = await processor.completion(body, state, record)
    format = CompletionFormat(job, processor.asked_logprobs(body), bool(body.return_tokens))
    return await respond(request, job, format)
