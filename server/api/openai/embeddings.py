"""POST /v1/embeddings."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request, Response

from server.api.common.embeddings.response import embeddings_response
from server.api.common.embeddings.schema import EmbeddingRequest, NativeEmbedding
from server.api.common.schema import Reply, field, required
from server.dependencies import ContextDep
from server.http.json_route import json_router
from server.http.sse import within_limits


class EmbeddingData(Reply):
    object: Literal["embedding"] = required("object type", "embedding")
    index: int = required("the input's place", 0)
    embedding: list[float] | str = required("the vector; a string with `encoding_format` base64", [0.6, -0.8])


class EmbeddingUsage(Reply):
    prompt_tokens: int = required("number of tokens of all inputs", 9)
    total_tokens: int = required("the same", 9)


class EmbeddingReply(Reply):
    object: Literal["list"] = required("object type", "list")
    model: str = required("its name", "stories")
    data: list[EmbeddingData] = required(
        "one per input, in order", [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}]
    )
    usage: EmbeddingUsage = required("token counts", {"prompt_tokens": 9, "total_tokens": 9})
    warnings: list[str] | None = field("request fields that had no effect", ["foo has no effect"])


router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingReply | list[NativeEmbedding]}}


@router.post("/v1/embeddings", response_model=None, responses=_REPLY)
async def embeddings(body: EmbeddingRequest, request: Request, context: ContextDep) -> Response:
    """Compute one vector per input. Any model can; models trained for embeddings give better ones."""
    work = embeddings_response(body, context, native=False)
    return await within_limits(request.receive, context, body.timeout_ms, work)
