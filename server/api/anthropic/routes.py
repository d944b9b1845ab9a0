"""POST /v1/messages and /v1/messages/count_tokens, for Anthropic's clients."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request, Response

from server.api.anthropic.formatter import MessageFormat
from server.api.anthropic.parser import chat_of, generation_of, hides_thinking
from server.api.anthropic.schema import CountReply, MessageInput, MessageReply, MessageRequest
from server.api.common.jobs import Words, chat_job, count
from server.api.common.json_reader import warn
from server.dependencies import RecordDep, StateDep
from server.http.json_route import Bytes, json_router
from server.http.respond import respond_in_blocks
from server.input.processor import unknown_fields

router = json_router()
_WORDS = Words("max_tokens", "input_schema")


@router.post("/v1/messages", response_model=None, responses={200: {"model": MessageReply}})
async def create_message(
    body: MessageRequest, request: Request, state: StateDep, record: RecordDep
) -> Response:
    """Answer a conversation. With `stream` the answer comes as server-sent events with names."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    for name in ("timings_per_token", "return_progress"):
        if getattr(body, name):
            warn(warnings, f"{name} has no effect: this API has no events for it")
    chat = chat_of(body, warnings)
    job = await chat_job(
        chat,
        generation_of(body),
        engine,
        state,
        record,
        warnings,
        words=_WORDS,
        prefix="msg_",
        max_tokens=body.max_tokens,
    )
    format = MessageFormat(job, omit=hides_thinking(body), return_tokens=bool(body.return_tokens))
    return await respond_in_blocks(request, job, format)


@router.post("/v1/messages/count_tokens", response_model=None, responses={200: {"model": CountReply}})
async def count_tokens(body: MessageInput, state: StateDep) -> Response:
    """How many tokens such a request would give to the model."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    n = await count(chat_of(body, warnings), engine, state, warnings, _WORDS)
    found: dict[str, Any] = {"input_tokens": n}
    return Bytes(msgspec.json.encode({**found, "warnings": warnings} if warnings else found))
