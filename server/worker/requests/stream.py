"""The stream of one request: outputs are pushed by the engine's side and read by the one client that waits
for them.

Pushing never blocks and never fails. When a client reads too slowly, its stream asks for a pause; if it does
not resume reading, the request is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import msgspec

from engine.types import FinishReason, Request, StepOutput, Timings

HIGH_WATER = 64  # unread outputs at which the request is paused
LOW_WATER = 16  # and at which it is resumed


@dataclass(kw_only=True)
class RequestInfo:
    """A request as listed by `GET /v1/requests`."""

    id: str
    model: str
    state: str  # queued | prefill | decode | paused
    n_prompt: int
    n_generated: int
    age_ms: float


class StreamOwner(Protocol):
    """What a stream calls when its client reads too slowly or leaves."""

    def pause(self, stream: Stream) -> None: ...
    def resume(self, stream: Stream) -> None: ...
    def leave(self, stream: Stream) -> None: ...


class Stream:
    """Async iterator over the outputs of one request; the last one has `finish`.

    The receiver must iterate to the end or call `aclose()`, which frees the sequence within one step.
    Cancelling a waiting `__anext__` loses nothing.
    """

    def __init__(
        self, owner: StreamOwner, request: Request, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.request = request
        self.submitted_at = clock()
        self.sent = False  # the current engine process has it
        self.crashes = 0  # of the engine, while this request may have been running, since its last token
        self.paused = False
        self.finished = False  # nothing more will be pushed
        self.processed: int | None = None  # prompt tokens in the KV cache
        self.first_token_at: float | None = None
        self._owner, self._clock = owner, clock
        self._tokens: list[int] = []  # received, for a restarted engine to continue from
        self._sampler_state = request.sampler_state  # after them
        self._resumed = False
        self._first: Timings | None = None  # as of the first token
        self._queue: deque[StepOutput] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    # --- the engine's side

    def push(self, output: StepOutput) -> None:
        """Append an output. Must be called in the order in which the engine produced them."""
        if self.finished:
            return
        if output.tokens:
            if self.first_token_at is None:
                self.first_token_at = self._clock()
            self.crashes = 0
            self._tokens.extend(token.id for token in output.tokens)
            self._sampler_state = output.tokens[-1].sampler_state
        if output.processed is not None:
            self.processed = output.processed
        if output.timings is not None:
            self._correct_timings(output)
        queue = self._queue
        if output.finish is not None:
            self.finished = True
            self._clear_read_timeout()
        elif not output.tokens and queue and not queue[-1].tokens:
            queue.pop()  # only the latest prefill progress matters
        queue.append(output)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if len(queue) >= HIGH_WATER and not self.paused and not self.finished:
            self.paused = True
            self._owner.pause(self)

    def fail(self, error: Exception) -> None:
        """End with an exception, raised after the queued outputs have been read."""
        if not self.finished:
            self.finished = True
            self._error = error
            self._clear_read_timeout()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def end(self, finish: FinishReason, error: str | None = None) -> None:
        """End on the server's side, with the timings known here."""
        timings = msgspec.structs.replace(self._first or Timings(n_batch=self.request.n_batch))
        if self.first_token_at is not None:
            timings.predicted_n = len(self._tokens)
            timings.predicted_ms = (self._clock() - self.first_token_at) * 1000
        self.push(StepOutput(id=self.request.id, finish=finish, error=error, timings=timings))

    def set_read_timeout(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after `seconds` unless the client reads before that."""
        self._clear_read_timeout()
        self._read_timer = asyncio.get_running_loop().call_later(seconds, action)

    def continuation(self) -> Request:
        """The request for an engine process that does not have it yet, including the tokens received."""
        if not self._tokens:
            return self.request
        self._resumed = True
        generated = [*self.request.generated, *self._tokens]
        return msgspec.structs.replace(self.request, generated=generated, sampler_state=self._sampler_state)

    @property
    def has_progress(self) -> bool:
        """Whether the engine has reported progress."""
        return self.processed is not None or bool(self._tokens)

    @property
    def n_generated(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> list[int]:
        """The tokens received so far, without those in `request.generated`."""
        return self._tokens

    @property
    def complete(self) -> bool:
        """Whether max_tokens have been received, if the engine died before it could say so."""
        limit = self.request.params.max_tokens
        return limit is not None and len(self.request.generated) + len(self._tokens) >= limit

    def info(self, model: str) -> RequestInfo:
        if self.paused:
            state = "paused"
        elif self._tokens:
            state = "decode"
        else:
            state = "prefill" if self.has_progress else "queued"
        return RequestInfo(
            id=self.request.id,
            model=model,
            state=state,
            n_prompt=len(self.request.prompt),
            n_generated=len(self._tokens),
            age_ms=(self._clock() - self.submitted_at) * 1000,
        )

    def _correct_timings(self, output: StepOutput) -> None:
        """Make timings those of the whole request, since a restarted engine counts from zero."""
        timings = output.timings
        if self._first is None:
            if output.tokens:
                self._first = timings
            return
        if not self._resumed:
            return
        if output.finish is None:
            output.timings = None  # those of the first token have been sent
        elif timings is not None and self.first_token_at is not None:
            output.timings = msgspec.structs.replace(
                self._first,
                predicted_n=len(self._tokens),
                predicted_ms=(self._clock() - self.first_token_at) * 1000,
            )

    # --- the client's side

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StepOutput:
        while not self._queue:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self.finished:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        output = self._queue.popleft()
        if self.paused and not self.finished and len(self._queue) <= LOW_WATER:
            self.paused = False
            self._clear_read_timeout()
            self._owner.resume(self)
        return output

    async def aclose(self) -> None:
        """Stop reading. If the request has not finished it is cancelled."""
        self._queue.clear()
        self._error = None
        if not self.finished:
            self.finished = True
            self._clear_read_timeout()
            self._owner.leave(self)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _clear_read_timeout(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
