"""POST /v1/rerank, /rerank, /v1/reranking, /reranking."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.embeddings.schema import TruncationFields
from server.api.common.schema import INT_MAX, Reply, field, required


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
