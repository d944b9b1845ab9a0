"""POST /v1/completions."""

from __future__ import annotations

from fastapi import Request, Response

from server.api.common.replies.native_completion import verbose_completion
from server.api.openai.choice_formatter import CompletionFormatter
from server.api.openai.completions.parser import parse_completion, parse_options
from server.api.openai.completions.schema import CompletionReply, CompletionRequest
from server.dependencies import ContextDep
from server.http.json_route import json_router
from server.http.sse import respond
from server.input.completion import process_completion

router = json_router()


@router.post("/v1/completions", response_model=None, responses={200: {"model": CompletionReply}})
async def completions(body: CompletionRequest, request: Request, context: ContextDep) -> Response:
    """Complete a prompt. With `stream` the response is server-sent events that end with `[DONE]`."""
    context.select_engine(body.model)
    options = parse_options(body, context)
    job = await process_completion(parse_completion(body, context), options, context)
    verbose = context.debug if body.verbose is None else body.verbose
    return await respond(
        request, CompletionFormatter(job, await verbose_completion(job) if verbose else None)
    )
