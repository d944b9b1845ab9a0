"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from server.api.common.logprobs import chat_logprobs
from server.api.common.timings import of_prompt, per_token
from server.api.openai.chat.parser import chat_input
from server.api.openai.chat.schema import ChatReply, ChatRequest
from server.api.openai.responses.schema import InputTokensReply
from server.dependencies import RecordDep, StateDep
from server.http.json_route import Bytes, json_router
from server.http.respond import respond
from server.http.sse import DONE, Answer, Format, chunk, encode
from server.input import processor
from server.input.chat import plan_chat
from server.input.constraints import asked_of

if TYPE_CHECKING:
    from server.chat.parser import ParsedOutput, ToolCallDelta
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Progress, Shown

router = json_router()


def _called(delta: ToolCallDelta, *, whole: bool = False) -> dict[str, Any]:
    """A tool call: the first news of it has its id, type and name; a whole one has no index."""
    if not delta.id:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    call = {"id": delta.id, "type": "function", "function": function}
    return call if whole else {"index": delta.index, **call}


class ChatFormat(Format):
    """Chunks of a stream. What never changes is encoded once."""

    def __init__(self, job: Job, logprobs: bool, return_tokens: bool) -> None:
        self.job, self.logprobs, self.return_tokens = job, logprobs, return_tokens
        self.plain = not logprobs and not return_tokens and not job.timings_per_token
        head = b"data: " + encode(self._chunk_head())[:-1] + b',"choices":[{"index":'
        self._before = [head + b'%d,"delta":{"content":' % choice.index for choice in job.choices]
        usage = b',"usage":null' if job.include_usage else b""
        self._after = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def _chunk_head(self) -> dict[str, Any]:
        job = self.job
        head = {"id": job.id, "object": "chat.completion.chunk", "created": job.created, "model": job.model}
        return {**head, "system_fingerprint": job.fingerprint}

    def first(self, choice: Choice) -> bytes:
        return self._chunk(choice, {"role": "assistant", "content": None})

    def progress(self, choice: Choice, progress: Progress) -> bytes:
        return self._chunk(choice, {}, tail=of_prompt(progress, choice, self.job.timings_per_token))

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        if self.plain and piece.split is None:
            return self._before[choice.index] + encode(piece.text) + self._after
        tail = per_token(choice) if self.job.timings_per_token else None
        return self._chunk(choice, self._delta(piece.parts), piece.tokens, tail=tail)

    def finish(self, choice: Choice, last: bool) -> bytes:
        return self._chunk(choice, {}, None, choice.finish, self.job.tail() if last else None)

    def end(self) -> bytes:
        job = self.job
        if not job.include_usage:
            return DONE
        return chunk({**self._chunk_head(), "choices": [], "usage": job.usage(), **job.tail()}) + DONE

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        job = self.job
        choices = [self._choice(answer) for answer in answers]
        head = {**self._chunk_head(), "object": "chat.completion"}
        return {**head, "choices": choices, "usage": job.usage(), **job.tail(answers)}

    def _choice(self, answer: Answer) -> dict[str, Any]:
        content, reasoning, tools = answer.parts
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        if tools:
            message["content"] = content or None
            message["tool_calls"] = [_called(tool, whole=True) for tool in tools]
        found = {"index": answer.choice.index, "message": message, **self._tokens(answer.shown)}
        return {**found, "finish_reason": answer.choice.finish}

    @staticmethod
    def _delta(parts: ParsedOutput) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if parts.reasoning:
            delta["reasoning_content"] = parts.reasoning
        if parts.content or not parts:
            delta["content"] = parts.content
        if parts.tools:
            delta["tool_calls"] = [_called(tool) for tool in parts.tools]
        return delta

    def _tokens(self, shown: list[Shown] | None) -> dict[str, Any]:
        has = self.logprobs and shown is not None
        found: dict[str, Any] = {
            "logprobs": chat_logprobs(self.job.facts.names, shown or []) if has else None
        }
        if self.return_tokens and shown is not None:
            found["tokens"] = [token.id for token, _ in shown]
        return found

    def _chunk(
        self,
        choice: Choice,
        delta: dict[str, Any],
        shown: list[Shown] | None = None,
        finish: str | None = None,
        tail: dict[str, Any] | None = None,
    ) -> bytes:
        found = {"index": choice.index, "delta": delta, **self._tokens(shown), "finish_reason": finish}
        usage = {"usage": None} if self.job.include_usage else {}
        return chunk({**self._chunk_head(), "choices": [found], **usage, **(tail or {})})


@router.post("/v1/chat/completions", response_model=None, responses={200: {"model": ChatReply}})
@router.post("/chat/completions", response_model=None, include_in_schema=False)
async def chat_completions(
    body: ChatRequest, request: Request, state: StateDep, record: RecordDep
) -> Response:
    """Answer a conversation. With `stream` the answer comes as server-sent events that end with `[DONE]`."""
    job = await processor.chat(body, state, record)
    shown = processor.asked_logprobs(body) is not None
    format = ChatFormat(job, shown, bool(body.return_tokens))
    return await respond(request, job, format)


@router.post(
    "/v1/chat/completions/input_tokens", response_model=None, responses={200: {"model": InputTokensReply}}
)
@router.post("/chat/completions/input_tokens", response_model=None, include_in_schema=False)
async def input_tokens(body: ChatRequest, state: StateDep) -> Response:
    """How many tokens the prompt of such a request has."""
    engine = state.engine(body.model)
    warnings = processor.unknown_fields(body)
    asked_of(body, warnings)  # refused here as there, though it does not change the prompt
    plan = await plan_chat(chat_input(body, warnings), engine, state, warnings)
    reply: dict[str, Any] = {"object": "response.input_tokens", "input_tokens": len(plan.prompt)}
    return Bytes(encode({**reply, "warnings": warnings} if warnings else reply))
