"""Embedding vectors: computed by the engine, then normalized and encoded."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from engine.tasks.types import Embed
from server.api.common.embeddings.schema import EmbeddingRequest
from server.errors import ApiError, NotSupported, bad_request, wrong
from server.generation.request_context import RequestContext
from server.generation.tasks import run_task
from server.input.task_inputs import Input, input_tokens
from server.worker.engine import Engine

if TYPE_CHECKING:  # numpy takes a tenth of the time to start, and most servers make no embeddings
    import numpy as np
    from numpy.typing import NDArray

GROUP = 1 << 16  # tokens of one task, which is repeated if the engine process dies
MAX_VALUES = 1 << 24  # numbers of one response: 64 MiB, five times that as text
_INLINE_VECTORS = 8
POOLED, TOKENS = 2, -1  # default norms: to length 1, none


@dataclass(frozen=True)
class VectorFormat:
    """The form in which a request wants its vectors."""

    pooling: str
    norm: int  # as `normalized` takes it
    dimensions: int | None
    base64: bool


def vector_format(body: EmbeddingRequest, context: RequestContext) -> VectorFormat:
    """The requested format, checked against the model. Raises ApiError (400), which names the field."""
    engine = context.engine
    pooling = pooling_of(body.pooling, context)
    if body.normalize is not None and body.embd_normalize is not None:
        raise wrong("embd_normalize", "is another form of normalize; send one of them")
    normalizes = (engine.info or {}).get("normalize", True)
    norm = TOKENS if pooling in ("none", "rank") or not normalizes else POOLED
    if body.normalize is not None:
        norm = POOLED if body.normalize else TOKENS
    if body.embd_normalize is not None:
        norm = body.embd_normalize
    width = (engine.info or {}).get("n_scores" if pooling == "rank" else "n_embd", 0)
    if body.dimensions is not None and body.dimensions > width:
        raise wrong("dimensions", f"the model's vectors have {width}, not {body.dimensions}")
    return VectorFormat(pooling, norm, body.dimensions, body.encoding_format == "base64")


def pooling_of(requested: str | None, context: RequestContext) -> str:
    """The request's pooling, else that of --pooling, else that of the model file."""
    info = context.engine.info or {}
    default = context.state.settings.pooling
    pooling: str = requested or (default if default != "auto" else info.get("pooling", "last"))
    if pooling == "rank" and not info.get("n_scores"):
        raise no_head(context.engine)
    return pooling


def no_head(engine: Engine) -> ApiError:
    message = f"model '{engine.name}' has no classification head, so it cannot rank documents"
    message += "; serve a reranking model, or compare vectors of /v1/embeddings"
    return NotSupported(400, message, param="model", code="no_ranking")


async def vectors_of(
    inputs: Sequence[Input], body: EmbeddingRequest, format: VectorFormat, param: str, context: RequestContext
) -> tuple[list[NDArray[np.float32]], int]:
    """The vectors of each input in `format`, and the number of tokens.

    param: the name of the inputs' field.
    """
    tokens = await input_tokens(inputs, context, param, body.cut_to())
    vectors = await embed(tokens, format.pooling, param, context)

    def formatted() -> list[NDArray[np.float32]]:
        return [normalized(rows[:, : format.dimensions], format.norm) for rows in vectors]

    return await context.in_thread(formatted) if is_large(vectors) else formatted(), sum(map(len, tokens))


async def text_vectors(
    texts: Sequence[str], body: EmbeddingRequest, param: str, context: RequestContext
) -> tuple[list[list[float]], int]:
    """One vector per text, and the number of tokens. param: the name of the texts' field."""
    if not texts:
        return [], 0
    format = vector_format(body, context)
    vectors, n_tokens = await vectors_of([[text] for text in texts], body, format, param, context)
    return await context.in_thread(lambda: [rows[0].tolist() for rows in vectors]), n_tokens


def is_large(vectors: Sequence[NDArray[np.float32]]) -> bool:
    """Whether processing all the vectors would block the event loop."""
    return sum(map(len, vectors)) > _INLINE_VECTORS


async def embed(
    inputs: Sequence[Sequence[int]],
    pooling: str,
    param: str,
    context: RequestContext,
    second: Sequence[int] = (),
) -> list[NDArray[np.float32]]:
    """The vectors of each input, float32 [rows, n]. param: the name of the inputs' field. second: for each
    input, the position at which its second sentence begins.
    """
    import numpy as np

    engine = context.engine
    n_tokens = sum(map(len, inputs))
    rows = n_tokens if pooling == "none" else len(inputs)
    width = (engine.info or {}).get("n_embd", 1)
    if rows * width > MAX_VALUES:
        message = f"{param}: {rows} vectors of {width} numbers exceed the limit of one response"
        raise bad_request(f"{message} ({MAX_VALUES}); send fewer at a time", param, "invalid_value")
    vectors: list[NDArray[np.float32]] = []
    groups = list(_groups(inputs))
    for start, group in groups:
        work = Embed(group, pooling, list(second[start : start + len(group)]), context.lora)
        result = await run_task(work, context, param)
        vectors += [np.frombuffer(data, "<f4").reshape(-1, result.width) for data in result.vectors]
    context.record.prompt_n = n_tokens
    context.state.metrics.of(engine.name).embedded(n_tokens, len(groups))
    return vectors


def _groups(inputs: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[list[int]]]]:
    """(number of the first input, inputs) of each task."""
    group: list[list[int]] = []
    start = size = 0
    for i, tokens in enumerate(inputs):
        if group and size + len(tokens) > GROUP:
            yield start, group
            start, group, size = i, [], 0
        group.append(list(tokens))
        size += len(tokens)
    yield start, group


def normalized(vectors: NDArray[np.float32], norm: int) -> NDArray[np.float32]:
    """Rows divided by a norm. -1: unchanged; 0: scaled to a maximum of 32760; p: by the p-norm."""
    if norm < 0:
        return vectors
    import numpy as np

    exact = vectors.astype(np.float64)
    if norm == 0:
        length = np.abs(exact).max(-1, keepdims=True) / 32760
    elif norm == 2:
        length = np.sqrt(np.square(exact).sum(-1, keepdims=True))
    else:  # of the rows divided by their maximum, so that no power overflows
        most = np.maximum(np.abs(exact).max(-1, keepdims=True), 1e-300)
        length = most * (np.abs(exact / most) ** norm).sum(-1, keepdims=True) ** (1 / norm)
    scaled: NDArray[np.float32] = (exact / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled


def encode_vector(row: NDArray[np.float32], format: VectorFormat) -> bytes:
    """One vector as JSON."""
    if format.base64:
        return b'"' + base64.b64encode(row.astype("<f4", copy=False).tobytes()) + b'"'
    return msgspec.json.encode(row.tolist())


def native_reply(vectors: Sequence[NDArray[np.float32]], format: VectorFormat) -> bytes:
    """llama-server's format: a list with one vector per row of each input."""
    items = [
        b'{"index":%d,"embedding":[%b]}' % (i, b",".join(encode_vector(row, format) for row in rows))
        for i, rows in enumerate(vectors)
    ]
    return b"[" + b",".join(items) + b"]"


def warning_headers(warnings: Sequence[str]) -> dict[str, str]:
    """The header with the warnings, for responses that are lists and so have no field for them."""
    if not warnings:
        return {}
    text = "; ".join(warnings).encode("ascii", "backslashreplace").decode()
    return {"x-warnings": "".join(c if c.isprintable() else "?" for c in text)[:2048]}
