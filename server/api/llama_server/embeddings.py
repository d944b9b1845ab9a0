"""POST /embeddings and /embedding."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from server.api.common.embeddings.response import embeddings_response
from server.api.common.embeddings.schema import EmbeddingRequest, NativeEmbedding
from server.dependencies import ContextDep
from server.http.json_route import json_router
from server.http.sse import within_limits

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": list[NativeEmbedding]}}


@router.post("/embeddings", response_model=None, responses=_REPLY)
@router.post("/embedding", response_model=None, responses=_REPLY)
async def native_embeddings(body: EmbeddingRequest, request: Request, context: ContextDep) -> Response:
    """Compute embeddings, in llama-server's format; pooling `none` gives an unnormalized vector per token."""
    work = embeddings_response(body, context, native=True)
    return await within_limits(request.receive, context, body.timeout_ms, work)
