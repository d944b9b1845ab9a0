"""One request's way back: from the engine process to the one client that waits for it.

Pushing never blocks and never fails, whatever the client does. A client that reads too slowly makes its
stream ask for a pause; one that stays away is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from engine.types import FinishReason, Request, StepOutput, Timings

if TYPE_CHECKING:
    from typing import Self

HIGH = 64  # emissions waiting for the client: pause
LOW = 16  # and few enough to go on


class QueueFull(Exception):
    """Too many requests are waiting. `retry_after_s` estimates when one of them will have left."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {retry_after_s:.0f} s")
        self.waiting, self.retry_after_s = waiting, retry_after_s


class EngineUnavailable(Exception):
    """The engine is loading, stopped, or failed for good; the text says which."""


@dataclass(kw_only=True)
class RequestInfo:
    """A request as `GET /v1/requests` lists it."""

    id: str
    model: str
    state: str  # queued | prefill | decode | paused
    n_prompt: int
    n_generated: int
    age_ms: float


class Owner(Protocol):
    """What a stream needs of its engine client."""

    def pause(self, stream: Stream) -> None: ...
    def resume(self, stream: Stream) -> None: ...
    def leave(self, stream: Stream) -> None: ...


class Stream:
    """Async iterator over the emissions of one request; the last has `finish`.

    Whoever asked for it must iterate to the end or `aclose()`, which frees the session within one step.
    Cancelling a waiting `__anext__` loses nothing: the next call goes on.
    """

    def __init__(self, owner: Owner, request: Request) -> None:
        self.request = request
        self.submitted_at = time.monotonic()
        self.sent = False  # the present engine process knows of it
        self.strikes = 0  # deaths of the engine since this request's last token, while it may have run
        self.paused = False
        self.finished = False  # nothing more will be pushed
        self.processed: int | None = None
        self.first_token_at: float | None = None
        self._owner = owner
        self._tokens: list[int] = []  # received, so that a restarted engine can go on after them
        self._mu = request.mu
        self._resumed = False
        self._first: Timings | None = None  # those that came with the first token
        self._queue: deque[StepOutput] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._give_up: asyncio.TimerHandle | None = None

    # --- the engine's side

    def push(self, emission: StepOutput) -> None:
        """Hand over news. Called in the order in which the engine made them."""
        if self.finished:
            return
        if emission.tokens:
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            self.strikes = 0
            self._tokens.extend(token.id for token in emission.tokens)
            self._mu = emission.tokens[-1].mu
        if emission.processed is not None:
            self.processed = emission.processed
        if emission.timings is not None:
            self._settle_timings(emission)
        queue = self._queue
        if emission.finish is not None:
            self.finished = True
            self._stop_giving_up()
        elif not emission.tokens and queue and not queue[-1].tokens:
            queue.pop()  # only the latest progress matters
        queue.append(emission)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if len(queue) >= HIGH and not self.paused and not self.finished:
            self.paused = True
            self._owner.pause(self)

    def fail(self, error: Exception) -> None:
        """End with an exception, after what is queued has been read."""
        if not self.finished:
            self.finished = True
            self._error = error
            self._stop_giving_up()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def end(self, finish: FinishReason, error: str | None = None) -> None:
        """End on the server's own decision."""
        timings = msgspec.structs.replace(self._first or Timings(n_batch=self.request.n_batch))
        if self.first_token_at is not None:
            timings.predicted_n = len(self._tokens)
            timings.predicted_ms = (time.monotonic() - self.first_token_at) * 1000
        self.push(StepOutput(id=self.request.id, finish=finish, error=error, timings=timings))

    def give_up_after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` unless the client has read on by then."""
        self._stop_giving_up()
        self._give_up = asyncio.get_running_loop().call_later(seconds, action)

    def continuation(self) -> Request:
        """The request as an engine must see it that knows nothing of it yet."""
        if not self._tokens:
            return self.request
        self._resumed = True
        generated = [*self.request.generated, *self._tokens]
        return msgspec.structs.replace(self.request, generated=generated, mu=self._mu)

    @property
    def n_generated(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> list[int]:
        """Received so far."""
        return self._tokens

    @property
    def complete(self) -> bool:
        """All tokens are here, though the engine died before it said so."""
        limit = self.request.params.max_tokens
        return limit is not None and len(self.request.generated) + len(self._tokens) >= limit

    def info(self, model: str) -> RequestInfo:
        if self.paused:
            state = "paused"
        elif self._tokens:
            state = "decode"
        else:
            state = "queued" if self.processed is None else "prefill"
        return RequestInfo(
            id=self.request.id,
            model=model,
            state=state,
            n_prompt=len(self.request.prompt),
            n_generated=len(self._tokens),
            age_ms=(time.monotonic() - self.submitted_at) * 1000,
        )

    def _settle_timings(self, emission: StepOutput) -> None:
        """After a restart the engine counts anew; what the client is told stays the whole."""
        timings = emission.timings
        if self._first is None:
            if emission.tokens:
                self._first = timings
            return
        if not self._resumed:
            return
        if emission.finish is None:
            emission.timings = None  # it had those of its first token
        elif timings is not None and self.first_token_at is not None:
            emission.timings = msgspec.structs.replace(
                self._first,
                predicted_n=len(self._tokens),
                predicted_ms=(time.monotonic() - self.first_token_at) * 1000,
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
        emission = self._queue.popleft()
        if self.paused and not self.finished and len(self._queue) <= LOW:
            self.paused = False
            self._stop_giving_up()
            self._owner.resume(self)
        return emission

    async def aclose(self) -> None:
        """Leave. What the engine still computes for this request is cancelled."""
        self._queue.clear()
        self._error = None
        if not self.finished:
            self.finished = True
            self._stop_giving_up()
            self._owner.leave(self)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _stop_giving_up(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
