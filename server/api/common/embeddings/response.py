"""The handler that /v1/embeddings, /embeddings and /embedding share: one request, two response formats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from server.api.common.embeddings.schema import EmbeddingRequest
from server.api.common.embeddings.vectors import (
    VectorFormat,
    encode_vector,
    is_large,
    native_reply,
    vector_format,
    vectors_of,
    warning_headers,
)
from server.api.common.requests.parser import check_fields
from server.errors import missing, unsupported
from server.generation.request_context import RequestContext
from server.http.json_reply import Bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


async def embeddings_response(body: EmbeddingRequest, context: RequestContext, native: bool) -> Bytes:
    """The response. native: in llama-server's format, which `content` in place of `input` also selects."""
    context.select_engine(body.model)
    check_fields(body, context)
    param = "content" if body.input is None else "input"
    inputs = body.content if body.input is None else body.input
    if inputs is None:
        raise missing("input")
    if param == "input" and body.content is not None:
        context.warn("content has no effect: input is set")
    native = native or param == "content"
    format = vector_format(body, context)
    if native and format.base64:
        context.warn("encoding_format has no effect on llama-server's format")
        format = replace(format, base64=False)
    if format.pooling == "none" and not native:
        raise unsupported("pooling", "none gives a vector for each token, which only /embeddings can return")
    vectors, n_tokens = await vectors_of(inputs, body, format, param, context)

    def write() -> Bytes:
        if native:
            return Bytes(native_reply(vectors, format), headers=warning_headers(context.warnings))
        return Bytes(_openai_reply(vectors, format, n_tokens, context))

    return await context.in_thread(write) if is_large(vectors) else write()


def _openai_reply(
    vectors: list[NDArray[np.float32]], format: VectorFormat, n_tokens: int, context: RequestContext
) -> bytes:
    items = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (i, encode_vector(rows[0], format))
        for i, rows in enumerate(vectors)
    ]
    tail = context.with_warnings({"usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}})
    head = msgspec.json.encode({"object": "list", "model": context.engine.name})
    return head[:-1] + b',"data":[' + b",".join(items) + b"]," + msgspec.json.encode(tail)[1:]
