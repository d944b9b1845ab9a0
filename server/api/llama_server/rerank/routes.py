"""POST /v1/rerank, /rerank, /v1/reranking, /reranking: how well documents answer a query."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Request, Response

from server.api.common import vectors
from server.api.llama_server.rerank.schema import RerankReply, RerankRequest, TeiResult
from server.api.openai.embeddings.routes import warning_headers
from server.dependencies import RecordDep, State, StateDep
from server.errors import bad_request
from server.http.json_route import Bytes, json_router
from server.input import processor
from server.input.embedding_inputs import pair_tokens
from server.worker import errands

if TYPE_CHECKING:
    from server.http.middleware.access_log import Record

router = json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": RerankReply | list[TeiResult]}}


async def _rerank(body: RerankRequest, state: State, record: Record) -> Bytes:
    engine = state.engine(body.model)
    warnings = processor.unknown_fields(body)
    param = "documents" if body.texts is None else "texts"
    documents = body.documents if body.texts is None else body.texts
    if documents is None:
        raise bad_request("documents: is required", "documents", "missing_field")
    if body.documents is not None and body.texts is not None:
        warnings.append("documents has no effect: texts is given")
    vectors.pooling_of("rank", engine, state)
    for name, other in (
        ("return_documents", "texts"),
        ("return_text", "documents"),
        ("raw_scores", "documents"),
    ):
        if param == other and getattr(body, name) is not None:
            warnings.append(f"{name} has no effect with {other}")
    tokens, second = await pair_tokens(body.query, documents, engine, state, param)
    found = await vectors.embed(tokens, "rank", engine, state, record, second)
    scores = [float(rows[0, 0]) for rows in found]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    if param == "texts":
        raw = body.raw_scores is not False
        ranked = [_tei(i, scores[i] if raw else _sigmoid(scores[i]), documents, body) for i in order]
        return Bytes(msgspec.json.encode(ranked), headers=warning_headers(warnings))
    n = sum(map(len, tokens))
    answer: dict[str, Any] = {
        "object": "list",
        "model": engine.name,
        "results": [_jina(i, scores[i], documents, body) for i in order],
        "usage": {"prompt_tokens": n, "total_tokens": n},
    }
    return Bytes(msgspec.json.encode({**answer, "warnings": warnings} if warnings else answer))


def _jina(index: int, score: float, documents: list[str], body: RerankRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "relevance_score": score}
    return {**found, "document": {"text": documents[index]}} if body.return_documents else found


def _tei(index: int, score: float, documents: list[str], body: RerankRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "score": score}
    return {**found, "text": documents[index]} if body.return_text else found


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@router.post("/v1/rerank", response_model=None, responses=_REPLY)
@router.post("/rerank", response_model=None, responses=_REPLY)
@router.post("/v1/reranking", response_model=None, responses=_REPLY)
@router.post("/reranking", response_model=None, responses=_REPLY)
async def rerank(body: RerankRequest, request: Request, state: StateDep, record: RecordDep) -> Response:
    """Documents by how well they fit a query, best first, by a model that was trained to compare two texts.

    With `texts` in place of `documents` the answer has the format of text-embeddings-inference.
    """
    return await errands.within_limits(request, state, body.timeout_ms, _rerank(body, state, record))
