"""The unfinished requests and tasks of one engine: sent, updated, and sent again after a crash."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from engine.tasks.types import Task, TaskUpdate
from engine.types import FinishReason, Request, StepOutput
from server.worker import messages
from server.worker.errors import TaskFailed
from server.worker.requests.pending_tasks import PendingTask
from server.worker.requests.recovery import Recovery, RestartDecision
from server.worker.requests.slots import Slots
from server.worker.requests.stream import Stream

log = logging.getLogger("ggserve.engine")
R = TypeVar("R")

LATE_S = 0.2  # after a deadline: the engine is restarting, hangs, or computes a long step
ASSUMED_DURATION_S = 5.0  # of a request, before any has finished


class EngineConnection(Protocol):
    """The part of `server.worker.supervision.supervisor.Supervisor` that is used here."""

    state: str

    def send(self, message: messages.ToEngine, /) -> None: ...


class InFlight:
    """Streams and pending tasks in order of admission. Every change is sent to the engine at once.

    advanced_at: when the engine last advanced any of them (by `clock`). empty: set while there are none.
    """

    def __init__(
        self,
        name: str,
        engine: EngineConnection,
        *,
        parallel: int,
        send_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = Slots(parallel, clock)
        self.empty = asyncio.Event()
        self.empty.set()
        self.advanced_at = 0.0
        self._name, self._engine = name, engine
        self.send_timeout_s, self._clock = send_timeout_s, clock
        self._streams: dict[str, Stream] = {}
        self._tasks: dict[str, PendingTask] = {}
        self._task_numbers = itertools.count(1)
        self._recovery = Recovery(parallel, clock)
        self._durations: deque[float] = deque(maxlen=64)  # seconds, of finished requests

    def __len__(self) -> int:
        return len(self._streams) + len(self._tasks)

    def __contains__(self, id: str) -> bool:
        """Whether there is a request with this id."""
        return id in self._streams

    @property
    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    @property
    def _pending(self) -> list[PendingTask]:
        return list(self._tasks.values())

    @property
    def any_paused(self) -> bool:
        return any(stream.paused for stream in self._streams.values())

    @property
    def mean_duration_s(self) -> float:
        """Mean duration of the most recently finished requests."""
        durations = self._durations
        return sum(durations) / len(durations) if durations else ASSUMED_DURATION_S

    # --- from the server

    def submit(self, request: Request) -> Stream:
        """Send a request and set its slot. Raises ValueError if its id is in use."""
        if request.id in self._streams:
            raise ValueError(f"request {request.id!r} is already running")
        resumable = request
        if request.params.seed is None:  # drawn here, so that a restarted engine continues with the same
            params = msgspec.structs.replace(request.params, seed=secrets.randbits(63))
            resumable = msgspec.structs.replace(request, params=params)
        stream = Stream(self, resumable, self._clock)
        self._admit()
        self._streams[request.id] = stream
        self.slots.enter(stream, request)
        self._send_unsent()
        return stream

    async def run(self, task: Task[R]) -> R:
        """Send a task and wait for its result; cancelling this cancels the task."""
        self._admit()
        pending = PendingTask(f"task-{next(self._task_numbers)}", task)  # type: ignore[arg-type]
        self._tasks[pending.id] = pending
        self._send_unsent()
        try:
            result: R = await pending.future
            return result
        finally:
            if not pending.future.done() or pending.future.cancelled():
                self._send(pending, messages.Cancel(pending.id))
            self._remove_task(pending)

    def cancel(self, id: str) -> bool:
        """End a request with CANCELLED. False: there is no such request."""
        stream = self._streams.get(id)
        if stream is not None:
            self._finish(stream, FinishReason.CANCELLED, "cancelled")
        return stream is not None

    def send_again(self, id: str) -> None:
        """Send a request again, unless it has ended, with the tokens that its client has."""
        if (stream := self._streams.get(id)) is not None:
            stream.sent = False
            self._send_unsent()

    def fail(self, id: str, error: Exception) -> None:
        """End a request that no engine will continue."""
        if (stream := self._streams.get(id)) is not None:
            stream.fail(error)
            self._remove_stream(stream)

    def cancel_all(self, error: Exception) -> None:
        """End all requests with CANCELLED, and fail all tasks."""
        for stream in self.streams:
            self._finish(stream, FinishReason.CANCELLED, str(error))
        for pending in self._pending:
            self._fail_task(pending, error)

    def fail_all(self, error: Exception) -> None:
        """End everything: the engine will not come back."""
        for stream in self.streams:
            self.fail(stream.request.id, error)
        for pending in self._pending:
            self._fail_task(pending, error)

    def expire(self) -> None:
        """End requests whose deadline has passed. Between two steps the engine does that itself."""
        now_ms = (self._clock() - LATE_S) * 1000
        for stream in self.streams:
            deadline_ms = stream.request.deadline_ms
            if deadline_ms is not None and now_ms > deadline_ms:
                self._finish(stream, FinishReason.TIMEOUT)

    # --- from a stream (`server.worker.requests.stream.StreamOwner`)

    def pause(self, stream: Stream) -> None:
        """The client reads too slowly: stop computing, and cancel the request if it does not resume."""
        self._send(stream, messages.Pause(stream.request.id))
        seconds = self.send_timeout_s
        text = f"the client did not read for {seconds:g} s"
        stream.set_read_timeout(seconds, lambda: self._finish(stream, FinishReason.CANCELLED, text))

    def resume(self, stream: Stream) -> None:
        """The client has caught up: continue computing."""
        self._send(stream, messages.Resume(stream.request.id))

    def leave(self, stream: Stream) -> None:
        """The client has disconnected: end the request."""
        self._send(stream, messages.Cancel(stream.request.id))
        self._remove_stream(stream)

    # --- from the engine

    def on_ready(self) -> None:
        self.advanced_at = self._clock()
        self._send_unsent()

    def on_outputs(self, outputs: Sequence[StepOutput]) -> None:
        now = self._clock()
        if outputs:
            self.advanced_at = now
        for output in outputs:
            stream = self._streams.get(output.id)
            if stream is None:  # its client has disconnected
                continue
            cleared = bool(stream.crashes and output.tokens)  # of the suspicion to crash the engine
            stream.push(output)
            if output.tokens:
                self._recovery.crashes.clear()  # earlier ones no longer count
            if stream.finished:
                self._durations.append(now - stream.submitted_at)
                self._remove_stream(stream)
            elif cleared:
                self._send_unsent()

    def on_task_updates(self, updates: Sequence[TaskUpdate]) -> None:
        self.advanced_at = self._clock()
        for update in updates:
            pending = self._tasks.get(update.id)
            if pending is None:  # it was cancelled
                continue
            cleared = bool(pending.crashes)
            pending.update(update)
            self._recovery.crashes.clear()  # earlier ones no longer count
            if pending.future.done():
                self._remove_task(pending)
            if cleared:
                self._send_unsent()

    def on_exit(self) -> RestartDecision:
        """The engine process has died: count the crash, and end the request or task that caused it."""
        decision = self._recovery.on_crash(self.streams, self._pending)
        for stream in self.streams:
            stream.sent = False
        for pending in self._pending:
            pending.restart()
        # The client does not get the exit reason, which may contain paths and lines of code.
        text = "the engine died more than once while it computed this request"
        match decision.culprit:
            case PendingTask() as pending:
                log.error("[%s] giving up a task: %s", self._name, type(pending.task).__name__)
                self._fail_task(pending, TaskFailed("EngineDied", text))
            case Stream() as stream:
                log.error("[%s] giving up request %s", self._name, stream.request.id)
                self._finish(stream, FinishReason.ERROR, text)
        return decision

    # --- helpers

    def _admit(self) -> None:
        if not self:
            self.advanced_at = self._clock()
            self.empty.clear()

    def _send_unsent(self) -> None:
        """Send what may be sent to the engine now and has not been sent yet."""
        if self._engine.state != "ready":
            return
        unfinished: list[Stream | PendingTask] = [*self._streams.values(), *self._tasks.values()]
        suspected = any(item.crashes for item in unfinished)
        for item in self._recovery.sendable(unfinished) if suspected else unfinished:
            if item.sent:  # before, or by a nested call, from _finish
                continue
            if isinstance(item, PendingTask):
                item.sent = True
                self._send(item, messages.SubmitTask(item.id, item.task))
            elif item.complete:
                self._finish(item, FinishReason.LENGTH)
            else:
                item.sent = True
                self._send(item, item.continuation())
                if item.paused:
                    self._send(item, messages.Pause(item.request.id))

    def _send(self, item: Stream | PendingTask, message: messages.ToEngine) -> None:
        if item.sent:
            self._engine.send(message)

    def _finish(self, stream: Stream, finish: FinishReason, error: str | None = None) -> None:
        """End a request that the engine has not ended."""
        self._send(stream, messages.Cancel(stream.request.id))
        stream.end(finish, error)
        self._remove_stream(stream)

    def _fail_task(self, pending: PendingTask, error: Exception) -> None:
        self._send(pending, messages.Cancel(pending.id))
        pending.fail(error)
        self._remove_task(pending)

    def _remove_stream(self, stream: Stream) -> None:
        if self._streams.pop(stream.request.id, None) is not None:
            self.slots.leave(stream)
        self._on_removed(stream)

    def _remove_task(self, pending: PendingTask) -> None:
        self._tasks.pop(pending.id, None)
        self._on_removed(pending)

    def _on_removed(self, item: Stream | PendingTask) -> None:
        if not self:
            self.empty.set()
        if item.crashes:  # it was retried alone: the next one
            self._send_unsent()
