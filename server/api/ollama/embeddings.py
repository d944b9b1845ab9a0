"""POST /api/embed and its predecessor, /api/embeddings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from server.api.common.embeddings.schema import EmbeddingRequest
from server.api.common.embeddings.vectors import embed, formatted, vector_format
from server.api.common.requests.generation_options import check_fields
from server.api.ollama.parser import warn_of_idle
from server.api.ollama.schema import OllamaEmbeddingsRequest, OllamaEmbedFields, OllamaEmbedRequest
from server.dependencies import ContextDep
from server.generation.request_context import RequestContext
from server.http.json_route import AnyTypeRoute, json_reply, json_router
from server.http.sse import within_limits
from server.input.task_inputs import input_tokens

router = json_router(AnyTypeRoute)


@router.post("/api/embed", response_model=None)
async def ollama_embed(body: OllamaEmbedRequest, request: Request, context: ContextDep) -> Response:
    """A vector of length 1 for each text."""
    _select(body, context)
    started = time.monotonic()
    texts = [body.input] if isinstance(body.input, str) else body.input
    reply: dict[str, Any] = {"model": body.model, "embeddings": []}
    if texts:
        options = EmbeddingRequest(dimensions=body.dimensions, truncate=body.truncate is not False)
        work = _vectors("input", texts, options, context)
        vectors, n_tokens = await within_limits(request.receive, context, None, work)
        times = {"total_duration": int((time.monotonic() - started) * 1e9), "load_duration": 0}
        reply |= {"embeddings": vectors, **times, "prompt_eval_count": n_tokens}
    return await context.in_thread(json_reply, reply, context)


@router.post("/api/embeddings", response_model=None)
async def ollama_embeddings(body: OllamaEmbeddingsRequest, request: Request, context: ContextDep) -> Response:
    """The vector of one text, of the length that the model gives it."""
    _select(body, context)
    if not body.prompt:
        return json_reply({"embedding": []}, context)
    work = _vectors("prompt", [body.prompt], EmbeddingRequest(normalize=False, truncate=True), context)
    ((vector,), _) = await within_limits(request.receive, context, None, work)
    return json_reply({"embedding": vector}, context)


def _select(body: OllamaEmbedFields, context: RequestContext) -> None:
    context.select_engine(body.model)
    check_fields(body, context)
    warn_of_idle(body.keep_alive, body.options, context)


async def _vectors(
    param: str, texts: Sequence[str], options: EmbeddingRequest, context: RequestContext
) -> tuple[list[list[float]], int]:
    """One for each text, and the number of tokens. Any model makes them."""
    format = vector_format(options, context)
    tokens = await input_tokens([[text] for text in texts], context, param, options.cut_to())
    vectors = await embed(tokens, format.pooling, context)
    lists = await context.in_thread(lambda: [formatted(rows, format)[0].tolist() for rows in vectors])
    return lists, sum(map(len, tokens))
