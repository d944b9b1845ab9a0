"""POST /completion and /infill, as llama-server has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from server.api.llama_server.completion.formatter import NativeFormat, prompts_of
from server.api.llama_server.completion.infill import infill_job
from server.api.llama_server.completion.parser import completion_job
from server.api.llama_server.completion.schema import InfillRequest, NativeFields, NativeReply, NativeRequest
from server.dependencies import RecordDep, StateDep
from server.http.json_route import json_router
from server.http.respond import respond

if TYPE_CHECKING:
    from server.generation.job import Job

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": NativeReply | list[NativeReply]}}


async def _answer(request: Request, body: NativeFields, job: Job) -> Response:
    fields = body.response_fields
    format = NativeFormat(
        job,
        await prompts_of(job) if not fields or "prompt" in fields else None,
        return_tokens=bool(body.return_tokens),
        fields=fields,
        stop=body.stop or (),
        post_sampling_probs=bool(body.post_sampling_probs),
    )
    return await respond(request, job, format)


@router.post("/completion", response_model=None, responses=_REPLY)
@router.post("/completions", response_model=None, include_in_schema=False)
async def completion(body: NativeRequest, request: Request, state: StateDep, record: RecordDep) -> Response:
    """Continue a prompt, in llama-server's own words. With `stream` the last event has `"stop": true`."""
    return await _answer(request, body, await completion_job(body, state, record))


@router.post("/infill", response_model=None, responses=_REPLY)
async def infill(body: InfillRequest, request: Request, state: StateDep, record: RecordDep) -> Response:
    """Fill the gap between a prefix and a suffix. 501 if the model has no tokens for that."""
    return await _answer(request, body, await infill_job(body, state, record))
