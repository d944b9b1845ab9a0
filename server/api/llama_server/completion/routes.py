"""POST /completion and /infill, as in llama-server."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from server.api.common.replies.native_completion import decoded_prompts
from server.api.llama_server.completion.formatter import NativeFormatter
from server.api.llama_server.completion.parser import parse_completion, parse_infill, parse_options
from server.api.llama_server.completion.schema import InfillRequest, NativeFields, NativeReply, NativeRequest
from server.dependencies import ContextDep
from server.generation.job import Job
from server.http.json_route import json_router
from server.http.sse import respond
from server.input.completion import process_completion

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": NativeReply | list[NativeReply]}}


@router.post("/completion", response_model=None, responses=_REPLY)
@router.post("/completions", response_model=None, include_in_schema=False)
async def completion(body: NativeRequest, request: Request, context: ContextDep) -> Response:
    """Complete a prompt, in llama-server's format. With `stream`, the last event has `"stop": true`."""
    context.select_engine(body.model)
    options = await parse_options(body, context)
    job = await process_completion(parse_completion(body, context), options, context)
    return await respond(request, await _formatter(body, job))


@router.post("/infill", response_model=None, responses=_REPLY)
async def infill(body: InfillRequest, request: Request, context: ContextDep) -> Response:
    """Fill the gap between a prefix and a suffix. 501 if the model has no fill-in-the-middle tokens."""
    context.select_engine(body.model)
    options = await parse_options(body, context)
    job = await process_completion(await parse_infill(body, options, context), options, context)
    return await respond(request, await _formatter(body, job))


async def _formatter(body: NativeFields, job: Job) -> NativeFormatter:
    fields = body.response_fields
    prompts = await decoded_prompts(job) if not fields or "prompt" in fields else None
    return NativeFormatter(job, prompts, return_tokens=bool(body.return_tokens), fields=fields)
