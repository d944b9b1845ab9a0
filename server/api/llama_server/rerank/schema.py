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
    model: str | None = field("may be left out if one model is served", "bge-reranker", max_length=512)
    query: str = required("what the documents are compared with", "What is a panda?")
    documents: Texts | None = field("what is ranked, in Jina's format", ["hi", "it is a bear"])
    texts: Texts | None = field(
        "the same in the format of Hugging Face's text-embeddings-inference, which the answer then has",
        ["hi", "it is a bear"],
    )
    top_n: int | None = field("only so many, the best ones; default: all", 3, ge=1, le=INT_MAX)
    return_documents: bool | None = field("with `documents`: each result has its text (default false)", True)
    return_text: bool | None = field("with `texts`: the same", True)
    raw_scores: bool | None = field(
        "with `texts`: false brings the scores to 0 … 1 by a sigmoid (default true: as the model gives them)",
        True,
    )
    timeout_ms: int | None = field("time for queue and computing together", 60000, ge=1, le=INT_MAX)


class RerankDocument(Reply):
    text: str = required("the document", "it is a bear")


class RerankResult(Reply):
    index: int = required("the document's place in the request", 1)
    relevance_score: float = required("as the model gives it: the greater, the more relevant", 5.3)
    document: RerankDocument | None = field("with `return_documents`", {"text": "it is a bear"})


class RerankUsage(Reply):
    prompt_tokens: int = required("tokens of all pairs of query and document", 19)
    total_tokens: int = required("the same", 19)


class TeiResult(Reply):
    """With `texts`, the response is a list of these. Warnings are in the header `x-warnings`."""

    index: int = required("the text's place in the request", 1)
    score: float = required("the greater, the more relevant", 5.3)
    text: str | None = field("with `return_text`", "it is a bear")


class RerankReply(Reply):
    object: str = required("what it is", "list")
    model: str = required("its name", "bge-reranker")
    results: list[RerankResult] = required("best first", [{"index": 1, "relevance_score": 5.3}])
    usage: RerankUsage = required("what it took", {"prompt_tokens": 19, "total_tokens": 19})
    warnings: list[str] | None = field("fields of the request that had no effect", ["foo has no effect"])
