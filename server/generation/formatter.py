"""The interface between a job and the API that formats its response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from server.chat.output import OutputDelta, PromptProgress
from server.errors import ApiError, ErrorFormat
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceOutput


class JobFormatter(ABC):
    """Formats one job in one API's format: as bytes of a stream (empty: nothing to send), or as one body.

    errors: how the API formats errors, and what a stream sends while it has no output.
    """

    errors: ClassVar[ErrorFormat]
    job: Job

    def start(self, sequence: OutputSequence) -> bytes:
        """Called before a sequence's first delta."""
        return b""

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        """The prefill progress of a sequence."""
        return b""

    @abstractmethod
    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        """New text or tokens of a sequence."""

    @abstractmethod
    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        """The end of a sequence. last: it is also the end of the job."""

    def end(self) -> bytes:
        """The end of the stream, after the end of the last sequence."""
        return b""

    def error(self, error: ApiError) -> bytes:
        """An error after the status line; it ends the stream."""
        return self.errors.stream.error(self.errors.body(error, self.job.context.record.id))

    def keep_alive(self) -> bytes:
        """Sent while there is no output; clients ignore it."""
        return self.errors.stream.keep_alive(self.job.progress())

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        """The same updates for a response that is not streamed, for formats that depend on their order."""
        return

    @abstractmethod
    def whole(self, results: Sequence[SequenceOutput]) -> Any:
        """The body of a response that is not streamed, for JSON. Built in a thread if it is large."""

    def keep(self, body: Any) -> None:
        """Store that body. Called in the event loop, before the body is sent."""
        return
