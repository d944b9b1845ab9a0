"""The response of /v1/embeddings. Its request is in `common.embedding_fields`."""

from __future__ import annotations

from typing import Literal

from server.api.common.schema import Reply, field, required


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
