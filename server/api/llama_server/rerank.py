"""POST /v1/rerank, /rerank, /v1/reranking, /reranking: score documents against a query."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from fastapi import Request, Response
from pydantic import PlainValidator, WithJsonSchema

from server.api.common.embeddings.schema import TruncationFields
from server.api.common.embeddings.vectors import embed, pooling_of, warning_headers
from server.api.common.requests.parser import check_fields
from server.api.common.schema import INT_MAX, Reply, field, required
from server.dependencies import ContextDep
from server.errors import missing
from server.generation.request_context import RequestContext
from server.http.json_reply import Bytes, json_reply
from server.http.json_route import json_router
from server.http.sse import within_limits
from server.input.task_inputs import pair_tokens


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("must be a list of texts")
    if not value:
        raise ValueError("the list is empty")
    # Jina's clients may send objects, as their images have to be.
    texts = [item.get("text") if isinstance(item, dict) and len(item) == 1 else item for item in value]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) < len(texts):
        raise ValueError("every item must be a text, or an object with a text as `text`")
    return strings


Texts = Annotated[
    list[str],
    PlainValidator(_texts),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
                ]
            },
        }
    ),
]


class RerankRequest(TruncationFields):
    model: str | None = field("optional if only one model is served", "bge-reranker", max_length=512)
    query: str = required("the query to compare the documents with", "What is a panda?")
    documents: Texts | None = field("the documents to rank, in Jina's format", ["hi", "it is a bear"])
    texts: Texts | None = field(
        "the same in the format of text-embeddings-inference, which the response then has too",
        ["hi", "it is a bear"],
    )
    top_n: int | None = field("return only the N best results; default: all", 3, ge=1, le=INT_MAX)
    return_documents: bool | None = field(
        "with `documents`: return the text of each result (default: false)", True
    )
    return_text: bool | None = field("with `texts`: the same", True)
    raw_scores: bool | None = field(
        "with `texts`: false maps the scores to 0 … 1 with a sigmoid (default: true, the model's own scores)",
        True,
    )
    timeout_ms: int | None = field(
        "time limit for queueing and computation together", 60000, ge=1, le=INT_MAX
    )


class RerankDocument(Reply):
    text: str = required("the document", "it is a bear")


class RerankResult(Reply):
    index: int = required("index of the document in the request", 1)
    relevance_score: float = required("the model's own score; greater is more relevant", 5.3)
    document: RerankDocument | None = field("with `return_documents`", {"text": "it is a bear"})


class RerankUsage(Reply):
    prompt_tokens: int = required("tokens of all query-document pairs", 19)
    total_tokens: int = required("the same", 19)


class TeiResult(Reply):
    """With `texts`, the response is a list of these. Warnings are in the header `x-warnings`."""

    index: int = required("index of the text in the request", 1)
    score: float = required("greater is more relevant", 5.3)
    text: str | None = field("with `return_text`", "it is a bear")


class RerankReply(Reply):
    object: str = required("object type", "list")
    model: str = required("its name", "bge-reranker")
    results: list[RerankResult] = required("best first", [{"index": 1, "relevance_score": 5.3}])
    usage: RerankUsage = required("timings and token counts", {"prompt_tokens": 19, "total_tokens": 19})
    warnings: list[str] | None = field("request fields that had no effect", ["foo has no effect"])


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
