"""The interface between a job and the API that answers with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from server.chat.parser import ParsedOutput
from server.errors import ApiError
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, PromptProgress, ShownToken, TextDelta


class SequenceResult(NamedTuple):
    """A finished sequence: its text as generated, the parts of it, its tokens where they are requested."""

    sequence: OutputSequence
    text: str
    parts: ParsedOutput
    tokens: list[ShownToken]


class JobFormatter(ABC):
    """Words one job in one API's format: as bytes of a stream (empty: nothing to send), or as one body."""

    job: Job

    def start(self, sequence: OutputSequence) -> bytes:
        """Before a sequence's first delta."""
        return b""

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        """How much of a sequence's prompt has been computed."""
        return b""

    @abstractmethod
    def delta(self, sequence: OutputSequence, delta: TextDelta) -> bytes:
        """New text or tokens of a sequence."""

    @abstractmethod
    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        """The end of a sequence. last: and of the job."""

    @abstractmethod
    def end(self) -> bytes:
        """The end of the stream."""

    @abstractmethod
    def error(self, error: ApiError) -> bytes:
        """A failure after the status line; it ends the stream."""

    def keep_alive(self) -> bytes:
        """Sent while there is nothing else to send: a comment, which clients ignore."""
        return f": keep-alive, {self.job.progress()}\n\n".encode()

    def collect(self, sequence: OutputSequence, delta: TextDelta) -> None:
        """The same news where the response is not streamed, for formats that depend on their order."""
        return

    @abstractmethod
    def whole(self, results: Sequence[SequenceResult]) -> Any:
        """The body of a response that is not streamed, to be encoded as JSON."""
