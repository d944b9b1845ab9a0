"""The response of /v1/embeddings. Its request is in `common.embedding_fields`."""

from __future__ import annotations

from typing import Literal

from server.api.common.schema import Reply, field, required


class EmbeddingData(Reply):
    object: Literal["embedding"] = required("what it is", "embedding")
    index: int = required("the input's place", 0)
    embedding: list[float] | str = required("the vector; a text with `encoding_format` base64", [0.6, -0.8])


class EmbeddingUsage(Reply):
    prompt_tokens: int = required("tokens of all inputs", 9)
    total_tokens: int = required("the same", 9)


class EmbeddingReply(Reply):
    object: Literal["list"] = required("what it is", "list")
    model: str = required("its name", "stories")
    data: list[EmbeddingData] = required(
        "one for each input, in order", [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}]
    )
    usage: EmbeddingUsage = required("what it took", {"prompt_tokens": 9, "total_tokens": 9})
    warnings: list[str] | None = field("fields of the request that had no effect", ["foo has no effect"])
