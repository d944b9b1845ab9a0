"""The backend that answers a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Message = dict[str, Any]


class Piece(NamedTuple):
    """More of an answer, or a line for the user. warning: one that is shown only once per conversation."""

    content: str = ""
    reasoning: str = ""
    note: str = ""
    warning: str = ""


class AnswerFailed(Exception):
    """There is no answer, or it was cut off. The text says in one line why, and what to do."""


class Backend(Protocol):
    """A local model or a server."""

    name: str  # of the model

    def answer(self, messages: Sequence[Message]) -> Iterator[Piece]:
        """The answer to messages in OpenAI's form. Raises AnswerFailed, and KeyboardInterrupt on Ctrl-C."""
        ...

    def save_cache(self, path: Path) -> int:
        """Write tokens and KV cache to `path`. Returns the file's size in bytes; 0: there is nothing to
        write.
        """
        ...

    def load_cache(self, path: Path) -> None:
        """Read what `save_cache` wrote. Raises EngineError; the conversation is then recomputed."""
        ...

    def close(self) -> None: ...
