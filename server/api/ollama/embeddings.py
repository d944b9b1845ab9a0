"""POST /api/embed and its predecessor, /api/embeddings."""

from __future__ import annotations

import time

from fastapi import Request, Response

from server.api.common.embeddings.schema import EmbeddingRequest
from server.api.common.embeddings.vectors import embed, formatted, vector_format
from server.api.common.requests.generation_options import check_fields
from server.api.ollama.parser import warn_of_idle
from server.api.ollama.schema import OllamaEmbeddingsRequest, OllamaEmbedFields, OllamaEmbedRequest
from server.dependencies import ContextDep
from server.generation.request_context import RequestContext
from server.http.json_route import AnyTypeRoute, Bytes, json_reply, json_router
from server.http.sse import within_limits
from server.input.task_inputs import input_tokens

router = json_router(AnyTypeRoute)


@router.post("/api/embed", response_model=None)
async def ollama_embed(body: OllamaEmbedRequest, request: Request, context: ContextDep) -> Response:
    """A vector of length 1 for each text."""
    _select(body, context)
    if not body.input:
        return json_reply({"model": body.model, "embeddings": []}, context)
    return await within_limits(request.receive, context, None, _embed(body, context))


@router.post("/api/embeddings", response_model=None)
async def ollama_embeddings(body: OllamaEmbeddingsRequest, request: Request, context: ContextDep) -> Response:
    """The vector of one text, of the length that the model gives it."""
    _select(body, context)
    if not body.prompt:
        return json_reply({"embedding": []}, context)
    return await within_limits(request.receive, context, None, _embedding(body.prompt, context))


def _select(body: OllamaEmbedFields, context: RequestContext) -> None:
    context.select_engine(body.model)
    check_fields(body, context)
    warn_of_idle(body.keep_alive, body.options, context)


async def _embed(body: OllamaEmbedRequest, context: RequestContext) -> Bytes:
    started = time.monotonic()
    format = vector_format(EmbeddingRequest(dimensions=body.dimensions), context)
    cut_to = None if body.truncate is False else -1
    tokens = await input_tokens([[text] for text in body.input], context, "input", cut_to)
    vectors = await embed(tokens, format.pooling, context)

    def write() -> Bytes:
        reply = {
            "model": body.model,
            "embeddings": [formatted(rows, format)[0].tolist() for rows in vectors],
            "total_duration": int((time.monotonic() - started) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": sum(map(len, tokens)),
        }
        return json_reply(reply, context)

    return await context.in_thread(write)


async def _embedding(prompt: str, context: RequestContext) -> Bytes:
    format = vector_format(EmbeddingRequest(normalize=False), context)
    (rows,) = await embed(await input_tokens([[prompt]], context, "prompt", -1), format.pooling, context)
    return json_reply({"embedding": formatted(rows, format)[0].tolist()}, context)
