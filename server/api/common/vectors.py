"""Vectors of inputs: computed by the engine, brought to length, and written out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from engine.tasks.types import Embed
from server.errors import ApiError, bad_request
from server.worker import errands

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from server.api.openai.embeddings.schema import EmbeddingRequest
    from server.dependencies import Engine, State
    from server.http.middleware.access_log import Record

GROUP = 1 << 16  # tokens of one order: what is done again after a death of the engine
MAX_VALUES = 1 << 24  # numbers of one answer: 64 MiB, five times that as text
POOLED, TOKENS = 2, -1  # how vectors are normalised by default: to length 1, not


@dataclass(frozen=True)
class Shape:
    """What a request wants its vectors to be."""

    pooling: str
    norm: int  # see `normalized`
    dimensions: int | None
    base64: bool


def shape_of(body: EmbeddingRequest, engine: Engine, state: State) -> Shape:
    """Checked against the model. The fields are named where it cannot do it."""
    pooling = pooling_of(body.pooling, engine, state)
    if body.normalize is not None and body.embd_normalize is not None:
        message = "embd_normalize: says the same as normalize; give one of them"
        raise bad_request(message, "embd_normalize", "invalid_value")
    normalizes = (engine.info or {}).get("normalize", True)
    norm = TOKENS if pooling in ("none", "rank") or not normalizes else POOLED
    if body.normalize is not None:
        norm = POOLED if body.normalize else TOKENS
    if body.embd_normalize is not None:
        norm = body.embd_normalize
    width = (engine.info or {}).get("n_scores" if pooling == "rank" else "n_embd", 0)
    if body.dimensions is not None and body.dimensions > width:
        message = f"dimensions: the model's vectors have {width}, not {body.dimensions}"
        raise bad_request(message, "dimensions", "invalid_value")
    return Shape(pooling, norm, body.dimensions, body.encoding_format == "base64")


def pooling_of(asked: str | None, engine: Engine, state: State) -> str:
    """What a request asks for, else --pooling, else what the model's file says."""
    info = engine.info or {}
    default = state.settings.pooling
    pooling: str = asked or (default if default != "auto" else info.get("pooling", "last"))
    if pooling == "rank" and not info.get("n_scores"):
        raise no_head(engine)
    return pooling


def no_head(engine: Engine) -> ApiError:
    message = f"model '{engine.name}' has no head that scores: it is no model for ranking"
    return ApiError(400, message, param="model", code="no_ranking", type="not_supported_error")


async def embed(
    inputs: Sequence[Sequence[int]],
    pooling: str,
    engine: Engine,
    state: State,
    record: Record,
    second: Sequence[int] = (),
) -> list[NDArray[np.float32]]:
    """Of each input its vectors, float32 [rows, n]. second: where the second sentence of each begins."""
    import numpy as np

    n_tokens = sum(map(len, inputs))
    rows = n_tokens if pooling == "none" else len(inputs)
    width = (engine.info or {}).get("n_embd", 1)
    if rows * width > MAX_VALUES:
        message = f"input: {rows} vectors of {width} numbers are more than one answer may hold"
        raise bad_request(f"{message} ({MAX_VALUES}); send fewer at a time", "input", "invalid_value")
    found: list[NDArray[np.float32]] = []
    groups = list(_groups(inputs))
    for start, group in groups:
        work = Embed(group, pooling, list(second[start : start + len(group)]))
        result = await errands.run(work, engine, state, record, "input")
        found += [np.frombuffer(data, "<f4").reshape(-1, result.width) for data in result.vectors]
    record.prompt_n = n_tokens
    state.metrics.of(engine.name).embedded(n_tokens, len(groups))
    return found


def _groups(inputs: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[list[int]]]]:
    """(number of its first input, inputs) of each order."""
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
    """Rows divided by a norm. -1: by nothing; 0: to a greatest value of 32760; p: by the p-norm."""
    import numpy as np

    if norm < 0:
        return vectors
    exact = vectors.astype(np.float64)
    if norm == 0:
        length = np.abs(exact).max(-1, keepdims=True) / 32760
    elif norm == 2:
        length = np.sqrt(np.square(exact).sum(-1, keepdims=True))
    else:  # of shares of the greatest, so that no power overflows
        most = np.maximum(np.abs(exact).max(-1, keepdims=True), 1e-300)
        length = most * (np.abs(exact / most) ** norm).sum(-1, keepdims=True) ** (1 / norm)
    found: NDArray[np.float32] = (exact / np.where(length > 0, length, 1.0)).astype(np.float32)
    return found


def shaped(vectors: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    """The first `dimensions` of each row, normalised."""
    return normalized(vectors[:, : shape.dimensions], shape.norm)


def text_of(row: NDArray[np.float32], shape: Shape) -> bytes:
    """One vector as JSON."""
    if shape.base64:
        return b'"' + base64.b64encode(row.astype("<f4", copy=False).tobytes()) + b'"'
    return msgspec.json.encode(row.tolist())
