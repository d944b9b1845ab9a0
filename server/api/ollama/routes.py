"""POST /api/generate and /api/chat; /api/embed and its predecessor /api/embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request, Response

from server.api.common.embeddings.schema import EmbeddingRequest
from server.api.common.embeddings.vectors import text_vectors
from server.api.common.requests.keep_alive import unload_when_idle
from server.api.ollama.formatter import OllamaFormatter, answer, durations
from server.api.ollama.parser import check_shared, parse_input, parse_options
from server.api.ollama.schema import (
    OllamaChatRequest,
    OllamaEmbeddingFields,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaFields,
    OllamaGenerateRequest,
)
from server.chat.output import OutputDelta
from server.chat.prompt import ChatFormats
from server.chat.request import ChatInput
from server.dependencies import ContextDep
from server.errors import bad_request
from server.generation.request_context import RequestContext
from server.http.json_reply import json_reply
from server.http.json_route import AnyTypeRoute, json_router
from server.http.sse import respond, within_limits
from server.input.completion import process_completion
from server.input.processor import chat_support, process_chat

router = json_router(AnyTypeRoute)


@router.post("/api/generate", response_model=None)
async def ollama_generate(body: OllamaGenerateRequest, request: Request, context: ContextDep) -> Response:
    """Reply to a prompt, or with `raw` continue it; by default with a stream of JSON lines."""
    return await _answer(body, body.prompt, request, context)


@router.post("/api/chat", response_model=None)
async def ollama_chat(body: OllamaChatRequest, request: Request, context: ContextDep) -> Response:
    """Reply to a conversation; by default with a stream of JSON lines."""
    return await _answer(body, body.messages, request, context)


async def _answer(body: OllamaFields, prompt: object, request: Request, context: RequestContext) -> Response:
    """The response. A request without a prompt loads the model or, with `keep_alive: 0`, unloads it."""
    if not prompt and body.keep_alive == 0:
        context.model = context.find_model(body.model)
        unload_when_idle(context)
        check_shared(body, None if body.options is None else body.options.model_extra, context)
        return json_reply(answer(body, OutputDelta(), done=True, done_reason="unload"), context)
    context.select_engine(body.model)
    options = parse_options(body, context)
    if not prompt:
        return json_reply(answer(body, OutputDelta(), done=True, done_reason="load"), context)
    asks = body.think or isinstance(body, OllamaGenerateRequest)
    formats = (await chat_support(context)).formats if asks else None
    parsed = parse_input(body, context, has_template=formats is not None)
    if not isinstance(parsed, ChatInput):
        job = await process_completion(parsed, options, context)
    elif body.think and isinstance(formats, ChatFormats) and formats.plain.markers is None:
        # Clients that try it look for these words.
        raise bad_request(f'"{body.model}" does not support thinking', "think", "unsupported_value")
    else:
        job = await process_chat(parsed, options, context)
    return await respond(request, OllamaFormatter(job, body))


@router.post("/api/embed", response_model=None)
async def ollama_embed(body: OllamaEmbedRequest, request: Request, context: ContextDep) -> Response:
    """Return a vector of length 1 for each text."""
    options = EmbeddingRequest(dimensions=body.dimensions, truncate=bool(body.truncate))
    vectors, n_tokens = await _vectors(body, "input", body.input, options, request, context)
    counts = {**durations(context.record), "prompt_eval_count": n_tokens} if n_tokens else {}
    reply = {"model": body.model, "embeddings": vectors, **counts}
    return await context.in_thread(json_reply, reply, context)


@router.post("/api/embeddings", response_model=None)
async def ollama_embeddings(body: OllamaEmbeddingsRequest, request: Request, context: ContextDep) -> Response:
    """Return the vector of one text, not normalized."""
    options = EmbeddingRequest(normalize=False, truncate=bool(body.truncate))
    vectors, _ = await _vectors(body, "prompt", body.prompt or [], options, request, context)
    return json_reply({"embedding": vectors[0] if vectors else []}, context)


async def _vectors(
    body: OllamaEmbeddingFields,
    param: str,
    texts: str | Sequence[str],
    options: EmbeddingRequest,
    request: Request,
    context: RequestContext,
) -> tuple[list[list[float]], int]:
    """One vector per text, and the number of tokens. Any model can compute them."""
    context.select_engine(body.model)
    check_shared(body, body.options, context)
    work = text_vectors([texts] if isinstance(texts, str) else texts, options, param, context)
    return await within_limits(request.receive, context, None, work)
