"""POST /v1/embeddings in OpenAI's format, /embeddings and /embedding in llama-server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Request, Response

from server.api.common import vectors
from server.api.openai.embeddings.schema import EmbeddingReply, EmbeddingRequest, NativeEmbedding
from server.dependencies import RecordDep, State, StateDep
from server.errors import bad_request
from server.http.json_route import Bytes, json_router
from server.input import processor
from server.input.embedding_inputs import input_tokens
from server.worker import errands

if TYPE_CHECKING:
    from server.http.middleware.access_log import Record

router = json_router()
encode = msgspec.json.encode
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingReply | list[NativeEmbedding]}}


async def _embed(body: EmbeddingRequest, state: State, record: Record, native: bool) -> Bytes:
    engine = state.engine(body.model)
    warnings = processor.unknown_fields(body)
    param = "content" if body.input is None else "input"
    inputs = body.content if body.input is None else body.input
    if inputs is None:
        raise bad_request("input: is required", "input", "missing_field")
    if param == "input" and body.content is not None:
        warnings.append("content has no effect: input is given")
    native = native or param == "content"
    shape = vectors.shape_of(body, engine, state)
    if native and shape.base64:
        warnings.append("encoding_format has no effect on llama-server's format")
        shape = vectors.Shape(shape.pooling, shape.norm, shape.dimensions, False)
    if shape.pooling == "none" and not native:
        message = "pooling: none gives a vector for each token, which only /embeddings can answer"
        raise bad_request(message, "pooling", "unsupported_value")
    tokens = await input_tokens(inputs, engine, state, param)
    found = await vectors.embed(tokens, shape.pooling, engine, state, record)

    def write() -> Bytes:
        rows = (vectors.shaped(each, shape) for each in found)
        if native:
            parts = [
                b'{"index":%d,"embedding":[%b]}' % (i, b",".join(vectors.text_of(row, shape) for row in each))
                for i, each in enumerate(rows)
            ]
            return Bytes(b"[" + b",".join(parts) + b"]", headers=warning_headers(warnings))
        parts = [
            b'{"object":"embedding","index":%d,"embedding":%b}' % (i, vectors.text_of(each[0], shape))
            for i, each in enumerate(rows)
        ]
        n = sum(map(len, tokens))
        tail = {"usage": {"prompt_tokens": n, "total_tokens": n}}
        rest = encode({**tail, "warnings": warnings} if warnings else tail)
        head = encode({"object": "list", "model": engine.name})
        return Bytes(head[:-1] + b',"data":[' + b",".join(parts) + b"]," + rest[1:])

    return await state.in_thread(write) if len(found) > 8 or len(found[0]) > 8 else write()


def warning_headers(warnings: list[str]) -> dict[str, str]:
    """For answers that are lists and have no place for them."""
    if not warnings:
        return {}
    text = "; ".join(warnings).encode("ascii", "backslashreplace").decode()
    return {"x-warnings": "".join(c if c.isprintable() else "?" for c in text)[:2048]}


@router.post("/v1/embeddings", response_model=None, responses=_REPLY)
async def embeddings(
    body: EmbeddingRequest, request: Request, state: StateDep, record: RecordDep
) -> Response:
    """One vector for each input. Any model makes them; those trained for it make better ones."""
    work = _embed(body, state, record, native=False)
    return await errands.within_limits(request, state, body.timeout_ms, work)


@router.post("/embeddings", response_model=None, responses={200: {"model": list[NativeEmbedding]}})
@router.post("/embedding", response_model=None, responses={200: {"model": list[NativeEmbedding]}})
async def native_embeddings(
    body: EmbeddingRequest, request: Request, state: StateDep, record: RecordDep
) -> Response:
    """As llama-server: with pooling `none` a vector for each token, as it is."""
    work = _embed(body, state, record, native=True)
    return await errands.within_limits(request, state, body.timeout_ms, work)
