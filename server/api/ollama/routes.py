"""POST /api/generate, /api/chat and /api/show."""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request, Response

from server.api.ollama.formatter import OllamaFormatter, answer
from server.api.ollama.models import describe_model
from server.api.ollama.parser import model_name, parse_chat, parse_options, parse_prompt
from server.api.ollama.schema import (
    OllamaChatRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaNameRequest,
    OllamaReply,
)
from server.chat.chat_format import ChatFormats
from server.chat.request import ChatInput
from server.dependencies import ContextDep
from server.errors import bad_request
from server.generation.job import Job
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.http.json_route import AnyTypeRoute, json_reply, json_router
from server.http.sse import respond
from server.input.chat import chat_support
from server.input.processor import process_chat, process_completion

router = json_router(AnyTypeRoute)
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": OllamaReply}}


@router.post("/api/generate", response_model=None, responses=_REPLY)
async def ollama_generate(body: OllamaGenerateRequest, request: Request, context: ContextDep) -> Response:
    """Answer a prompt, or with `raw` continue it; by default a stream of JSON lines."""
    context.select_engine(body.model)
    options = parse_options(body, context, return_tokens=not body.raw)
    if not body.prompt:
        return _nothing_generated(body, context)
    formats = (await chat_support(context)).formats
    prompt = parse_prompt(body, context, has_template=formats is not None)
    if isinstance(prompt, ChatInput):
        job = await _chat_job(body, prompt, options, context)
    else:
        job = await process_completion(prompt, options, context)
    return await respond(request, OllamaFormatter(job, body, with_context=not body.raw))


@router.post("/api/chat", response_model=None, responses=_REPLY)
async def ollama_chat(body: OllamaChatRequest, request: Request, context: ContextDep) -> Response:
    """Answer a conversation; by default with a stream of JSON lines."""
    context.select_engine(body.model)
    options = parse_options(body, context)
    if not body.messages:
        return _nothing_generated(body, context)
    job = await _chat_job(body, parse_chat(body, context), options, context)
    return await respond(request, OllamaFormatter(job, body))


def _nothing_generated(body: OllamaFields, context: RequestContext) -> Response:
    """Without a prompt a request asks to load the model or, with `keep_alive: 0`, to unload it."""
    zero = body.keep_alive is not None and not re.search("[1-9]", str(body.keep_alive))
    reason = "unload" if zero else "load"
    return json_reply({**answer(body, ""), "done": True, "done_reason": reason}, context)


async def _chat_job(
    body: OllamaFields, chat: ChatInput, options: GenerationOptions, context: RequestContext
) -> Job:
    formats = (await chat_support(context)).formats
    if body.think and isinstance(formats, ChatFormats) and formats.plain.markers is None:
        # Clients that try it look for these words.
        raise bad_request(f'"{body.model}" does not support thinking', "think", "unsupported_value")
    return await process_chat(chat, options, context)


@router.post("/api/show", response_model=None)
async def show_model(body: OllamaNameRequest, context: ContextDep) -> Response:
    """What a model is and can do."""
    context.select_engine(model_name(body, context))
    return json_reply(await describe_model(context), context)
