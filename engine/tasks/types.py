"""Tasks: engine work other than text generation. Data only, no behaviour.

All of it is exchanged as msgpack between the server and an engine process.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from engine.types import AdapterScales

R = TypeVar("R")


class Embedded(msgspec.Struct, array_like=True, tag=True):
    """For each input its vectors: float32 [rows, width], row after row, as little-endian bytes.

    One row per input; with pooling `none` one per token; with `rank` one row of scores.
    """

    vectors: list[bytes]
    width: int


class PromptLogprobs(msgspec.Struct, array_like=True, tag=True):
    """Float64 [tokens - 1, 2 + 2 top] as little-endian bytes; see `LogprobRows` in `prompt_logprobs`."""

    rows: bytes
    width: int


class Saved(msgspec.Struct, array_like=True, tag=True):
    """A slot was written to a file."""

    n_tokens: int  # whose cells are in the file
    n_bytes: int
    ms: float


class Restored(msgspec.Struct, array_like=True, tag=True):
    """A slot was read from a file."""

    tokens: list[int]
    n_tokens: int  # of the first `n_tokens` tokens the file had the cells
    n_bytes: int
    ms: float
    lora: AdapterScales = ()  # that computed it


class Erased(msgspec.Struct, array_like=True, tag=True):
    """A slot was erased."""

    n_tokens: int  # whose cells were freed, since no other sequence needs them


class Task(msgspec.Struct, Generic[R], frozen=True, array_like=True, tag=True):
    """A task whose result is an R."""


class Embed(Task[Embedded], frozen=True):
    """Pool the hidden states of token ids: see `engine.tasks.embedding`. Vectors are not normalized.

    second: for each input the position at which its second segment begins, 0 if it has one segment; empty: no
    input has two.
    """

    inputs: list[list[int]]
    pooling: str = "auto"
    second: list[int] = []
    lora: AdapterScales = ()


class GetPromptLogprobs(Task[PromptLogprobs], frozen=True):
    """Log-probabilities of a prompt's own tokens: see `engine.tasks.prompt_logprobs`."""

    tokens: list[int]
    top: int = 0
    lora: AdapterScales = ()
    salt: str = ""  # of the prefix cache, see `engine.types.Request.cache_salt`


class SaveSlot(Task[Saved], frozen=True):
    """Write a sequence to a file, with those of its cells that are still cached."""

    path: str
    tokens: list[int]
    lora: AdapterScales = ()
    salt: str = ""


class RestoreSlot(Task[Restored], frozen=True):
    """Put what a file holds into the prefix cache."""

    path: str
    salt: str = ""


class EraseSlot(Task[Erased], frozen=True):
    """Drop the end of a sequence from the prefix cache, as far as no other sequence shares it."""

    tokens: list[int]
    lora: AdapterScales = ()
    salt: str = ""


AnyTask = Embed | GetPromptLogprobs | SaveSlot | RestoreSlot | EraseSlot
TaskResult = Embedded | PromptLogprobs | Saved | Restored | Erased


class ResultChunk(msgspec.Struct, array_like=True):
    """The next bytes of a vector of an `Embedded`, or of the rows of `PromptLogprobs` (input 0)."""

    input: int
    data: bytes


class TaskFailure(msgspec.Struct, array_like=True):
    """Why a task failed: the class of the error and its message, one line."""

    kind: str
    text: str


class TaskUpdate(msgspec.Struct, array_like=True):
    """The update of one task by one step: chunks of the result, or its end. Neither: it is still running."""

    id: str
    chunks: list[ResultChunk] = []
    result: TaskResult | None = None  # without the bytes of vectors and rows, which came in chunks
    failure: TaskFailure | None = None
