"""POST /v1/rerank, /rerank, /v1/reranking, /reranking: score documents against a query."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from fastapi import Request, Response

from server.api.common.embeddings.vectors import embed, pooling_of, warning_headers
from server.api.common.requests.parser import check_fields
from server.api.llama_server.rerank.schema import RerankReply, RerankRequest, TeiResult
from server.dependencies import ContextDep
from server.errors import missing
from server.generation.request_context import RequestContext
from server.http.json_reply import Bytes, json_reply
from server.http.json_route import json_router
from server.http.sse import within_limits
from server.input.task_inputs import pair_tokens

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": RerankReply | list[TeiResult]}}


async def _rerank(body: RerankRequest, context: RequestContext) -> Bytes:
    engine = context.select_engine(body.model)
    check_fields(body, context)
    param = "documents" if body.texts is None else "texts"
    documents = body.documents if body.texts is None else body.texts
    if documents is None:
        raise missing("documents")
    if body.documents is not None and body.texts is not None:
        context.warn("documents has no effect: texts is set")
    pooling_of("rank", context)  # refuses models that cannot rank
    for name, other in (
        ("return_documents", "texts"),
        ("return_text", "documents"),
        ("raw_scores", "documents"),
    ):
        if param == other and getattr(body, name) is not None:
            context.warn(f"{name} has no effect with {other}")
    tokens, second = await pair_tokens(body.query, documents, context, param, body.cut_to())
    scores = [float(rows[0, 0]) for rows in await embed(tokens, "rank", param, context, second)]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    if param == "texts":
        raw = body.raw_scores is not False
        ranked = [_tei(i, scores[i] if raw else _sigmoid(scores[i]), documents, body) for i in order]
        return Bytes(msgspec.json.encode(ranked), headers=warning_headers(context.warnings))
    n = sum(map(len, tokens))
    reply: dict[str, Any] = {
        "object": "list",
        "model": engine.name,
        "results": [_jina(i, scores[i], documents, body) for i in order],
        "usage": {"prompt_tokens": n, "total_tokens": n},
    }
    return json_reply(reply, context)


def _jina(index: int, score: float, documents: list[str], body: RerankRequest) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": score}
    return {**result, "document": {"text": documents[index]}} if body.return_documents else result


def _tei(index: int, score: float, documents: list[str], body: RerankRequest) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "score": score}
    return {**result, "text": documents[index]} if body.return_text else result


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@router.post("/v1/rerank", response_model=None, responses=_REPLY)
@router.post("/rerank", response_model=None, responses=_REPLY)
@router.post("/v1/reranking", response_model=None, responses=_REPLY)
@router.post("/reranking", response_model=None, responses=_REPLY)
async def rerank(body: RerankRequest, request: Request, context: ContextDep) -> Response:
    """Rank documents by their relevance to a query, with a model that has a classification head.

    With `texts` in place of `documents`, the response has the format of text-embeddings-inference.
    """
    return await within_limits(request.receive, context, body.timeout_ms, _rerank(body, context))
