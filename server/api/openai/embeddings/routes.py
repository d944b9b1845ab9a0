"""POST /v1/embeddings."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from server.api.common.embeddings.response import embeddings_response
from server.api.common.embeddings.schema import EmbeddingRequest, NativeEmbedding
from server.api.openai.embeddings.schema import EmbeddingReply
from server.dependencies import ContextDep
from server.http.json_route import json_router
from server.http.sse import within_limits

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingReply | list[NativeEmbedding]}}


@router.post("/v1/embeddings", response_model=None, responses=_REPLY)
async def embeddings(body: EmbeddingRequest, request: Request, context: ContextDep) -> Response:
    """Compute one vector per input. Any model can; models trained for embeddings give better ones."""
    work = embeddings_response(body, context, native=False)
    return await within_limits(request.receive, context, body.timeout_ms, work)
