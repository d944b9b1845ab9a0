"""What an engine does besides streams of tokens: one order, one result. Data only, no behaviour.

All of it travels as msgpack between the server and an engine process.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

R = TypeVar("R")


class Embedded(msgspec.Struct, array_like=True, tag=True):
    """Of each input its vectors, float32 [rows, width] as little-endian bytes.

    A row per input; with pooling `none` one per token; with `rank` its scores.
    """

    vectors: list[bytes]
    width: int


class Scored(msgspec.Struct, array_like=True, tag=True):
    """Float64 [tokens - 1, 1 + 2 top] as little-endian bytes: see `engine.tasks.prompt_logprobs.Scores`."""

    rows: bytes
    width: int


class Saved(msgspec.Struct, array_like=True, tag=True):
    n_tokens: int  # whose cells are in the file
    n_bytes: int
    ms: float


class Restored(msgspec.Struct, array_like=True, tag=True):
    tokens: list[int]
    n_tokens: int  # of these, the first, whose cells were in the file
    n_bytes: int
    ms: float


class Erased(msgspec.Struct, array_like=True, tag=True):
    n_tokens: int  # whose cells were given back, since no other sequence needs them


class Task(msgspec.Struct, Generic[R], frozen=True, array_like=True, tag=True):
    """An order whose result is an R."""


class Embed(Task[Embedded], frozen=True):
    """Hidden states of token ids, pooled: see `engine.tasks.embedding`. Vectors are not normalised.

    second: for each input, where the second of two sentences begins; empty: there is one in each.
    """

    inputs: list[list[int]]
    pooling: str = "auto"
    second: list[int] = []


class Score(Task[Scored], frozen=True):
    """How likely a text's own tokens are: see `engine.tasks.prompt_logprobs`."""

    tokens: list[int]
    top: int = 0


class SaveSlot(Task[Saved], frozen=True):
    """Write a sequence, and of its cells those that are still cached, to a file."""

    path: str
    tokens: list[int]


class RestoreSlot(Task[Restored], frozen=True):
    """Put what a file holds into the prefix cache."""

    path: str


class EraseSlot(Task[Erased], frozen=True):
    """Forget the end of a sequence that no other sequence shares."""

    tokens: list[int]


AnyTask = Embed | Score | SaveSlot | RestoreSlot | EraseSlot
TaskResult = Embedded | Scored | Saved | Restored | Erased


class ResultChunk(msgspec.Struct, array_like=True):
    """The next bytes of one of the vectors of an `Embedded`, or of the rows of a `Scored`."""

    input: int
    data: bytes


class TaskFailure(msgspec.Struct, array_like=True):
    """Why work came to nothing: the class of the error, and its one line."""

    kind: str
    text: str


class TaskUpdate(msgspec.Struct, array_like=True):
    """What one step brought of one order: pieces of the result, or its end. Neither: it goes on."""

    id: str
    pieces: list[ResultChunk] = []
    result: TaskResult | None = None  # of an Embed or Score without its bytes: they came in pieces
    failure: TaskFailure | None = None
