"""The server's handle on one model: its requests, each a stream fed by an engine process.

When the process dies the streams live on here: the next process gets each request again, with the tokens
that its client already has, so that the client sees a pause and the same text. Everything runs in the event
loop, and nothing in it blocks.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from engine.config import ModelParameters
from engine.types import EngineStats, FinishReason, Request
from server.config.engine_options import EngineOptions
from server.worker import messages
from server.worker.child import DEFAULT_ARGV
from server.worker.pending_tasks import PendingTask, PendingTasks, TaskFailed
from server.worker.recovery import Recovery, Verdict
from server.worker.slots import Slots
from server.worker.stream import EngineUnavailable, QueueFull, RequestInfo, Stream
from server.worker.supervisor import LoadFailed, Supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from engine.tasks.types import Task
    from engine.tokenizer import Tokenizer

__all__ = ["EngineClient", "EngineOptions", "EngineUnavailable", "LoadFailed", "QueueFull", "RequestInfo"]

log = logging.getLogger("ggserve.engine")
R = TypeVar("R")


def _load_tokenizer(path: str) -> Tokenizer:
    from engine.tokenizer import load_tokenizer  # takes a moment to import; called in a thread

    return load_tokenizer(path)


class EngineClient:
    """One per served model: `start` once, `generate` and `run` often, `stop` once.

    state: loading | ready | restarting | failed | stopped; detail: why, or how far (for operators: it may
    hold paths).
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        params: ModelParameters,
        options: EngineOptions | None = None,
        *,
        argv: Sequence[str] = DEFAULT_ARGV,
        load_tokenizer: Callable[[str], Any] = _load_tokenizer,
    ) -> None:
        self.name, self.path, self.params = name, str(path), params
        self.options = options or EngineOptions()
        self.stats = EngineStats()
        self.on_progress: Callable[[float, str], None] | None = None
        self._load_tokenizer = load_tokenizer
        self._tokenizer: Any = None
        self._streams: dict[str, Stream] = {}  # unfinished, oldest first
        self._calls = PendingTasks()
        self.slots = Slots(params.parallel)
        self._recovery = Recovery(params.parallel)
        self._supervisor = Supervisor(
            name,
            messages.Load(self.path, params),
            self,
            argv=argv,
            log_level=self.options.log_level,
            stall_s=self.options.stall_s,
        )
        self._started = asyncio.Event()  # loaded, or failed to
        self._failure: LoadFailed | None = None
        self._stopping = False
        self._emptied = asyncio.Event()
        self._hurry = asyncio.Event()
        self._durations: deque[float] = deque(maxlen=64)  # seconds that finished requests took
        self._news_at = 0.0

    # --- what it is

    @property
    def state(self) -> str:
        if self._stopping:
            return "stopped"
        state = self._supervisor.state
        # The tokenizer is loaded here, by a thread, while the process loads the weights.
        return "loading" if state == "ready" and not self._started.is_set() else state

    @property
    def detail(self) -> str:
        return "shutting down" if self._stopping else self._supervisor.detail

    @property
    def progress(self) -> float:
        """Of loading, 0 to 1."""
        return self._supervisor.progress

    @property
    def info(self) -> dict[str, Any] | None:
        """What the model says of itself, placement included, once it is loaded."""
        return self._supervisor.info

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        """Of the present engine process."""
        return self._supervisor.pid

    @property
    def stalled(self) -> bool:
        """No answer, or work and no news of it, for stall_s seconds."""
        if self._supervisor.silent:
            return True
        streams = self._streams.values()
        idle = not streams and not self._calls
        if self.state != "ready" or idle or any(stream.paused for stream in streams):
            return False  # a paused stream may hold the memory for which the others wait
        return time.monotonic() - self._news_at > self.options.stall_s

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise EngineUnavailable(f"{self.name} is still loading")
        tokenizer: Tokenizer = self._tokenizer
        return tokenizer

    @property
    def n_ctx(self) -> int:
        """The longest session."""
        return int((self.info or {}).get("n_ctx") or self.params.context_size or 0)

    @property
    def max_batch_size(self) -> int:
        """The largest n_batch."""
        return int((self.info or {}).get("max_batch_tokens") or self.params.max_batch_tokens)

    def requests(self) -> list[RequestInfo]:
        """Running and waiting ones, oldest first."""
        return [stream.info(self.name) for stream in self._streams.values()]

    # --- requests

    def ensure_room(self, n: int = 1) -> None:
        """Raise QueueFull unless `n` more requests would be admitted now."""
        waiting = len(self._streams) + len(self._calls) - self.params.parallel
        if waiting + n > self.options.max_queue:
            raise QueueFull(max(waiting, 0), self._estimate_s(n))

    def generate(self, request: Request) -> Stream:
        """Admit a request now, or raise QueueFull or EngineUnavailable; iterate over what is returned."""
        self._ensure_admits()
        if request.id in self._streams:
            raise ValueError(f"a request {request.id!r} is running already")
        asked = request
        if request.params.seed is None:  # drawn here, so that a restarted engine goes on with the same
            params = msgspec.structs.replace(request.params, seed=secrets.randbits(63))
            request = msgspec.structs.replace(request, params=params)
        stream = Stream(self, request)
        self._streams[request.id] = stream
        self.slots.enter(stream, asked)
        self._send_waiting()
        return stream

    async def run(self, work: Task[R]) -> R:
        """Have work done that is no stream. Whoever stops waiting for it cancels it.

        Raises QueueFull, EngineUnavailable, or WorkFailed with what the engine says.
        """
        self._ensure_admits()
        call = self._calls.add(work)
        self._send_waiting()
        try:
            result: R = await call.future
            return result
        finally:
            if not call.future.done() or call.future.cancelled():
                self._tell(call, messages.Cancel(call.id))
            self._drop(call)

    def cancel(self, id: str) -> bool:
        """End a request from elsewhere; its client gets finish=CANCELLED. False: no such request."""
        stream = self._streams.get(id)
        if stream is not None:
            self._finish(stream, FinishReason.CANCELLED, "cancelled")
        return stream is not None

    def pause(self, stream: Stream) -> None:
        """The client reads too slowly: compute no more for it; give it up if it stays away."""
        self._tell(stream, messages.Pause(stream.request.id))
        seconds = self.options.send_timeout_s
        text = f"the client did not read for {seconds:g} s"
        stream.give_up_after(seconds, lambda: self._finish(stream, FinishReason.CANCELLED, text))

    def resume(self, stream: Stream) -> None:
        """The client has caught up."""
        self._tell(stream, messages.Resume(stream.request.id))

    def leave(self, stream: Stream) -> None:
        """The client has gone."""
        self._tell(stream, messages.Cancel(stream.request.id))
        self._remove(stream)

    # --- life

    def spawn(self) -> None:
        """Start the process, which begins to load. For before the event loop; `start` does it too."""
        self._supervisor.spawn()

    async def start(self, progress: Callable[[float, str], None] | None = None) -> None:
        """Load. Returns when requests can be served; raises LoadFailed if they never will be."""
        self._supervisor.on_progress = progress or self.on_progress
        self._supervisor.start()
        try:
            self._tokenizer = await asyncio.to_thread(self._load_tokenizer, self.path)
        except OSError as error:
            text = f"{self.path}: {error.strerror or error}"
            self._supervisor.give_up_loading(LoadFailed(type(error).__name__, text))
        except Exception as error:
            log.debug("no tokenizer", exc_info=True)
            self._supervisor.give_up_loading(LoadFailed(type(error).__name__, str(error)))
        try:
            await self._supervisor.loaded()
        except LoadFailed as failure:
            self._failure = failure
        self._started.set()
        await self.wait_loaded()

    async def wait_loaded(self) -> None:
        """Wait for what `start` waits for, wherever that runs."""
        await self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, drain_s: float = 0.0) -> None:
        """Admit nothing more, let streams finish for `drain_s` seconds, end the process.

        A second call with 0 makes the first one hurry.
        """
        if drain_s <= 0:
            self._hurry.set()
        if self._stopping:
            return
        self._stopping = True
        if (self._streams or self._calls) and self._supervisor.state in ("ready", "restarting"):
            self._emptied.clear()
            waits = [asyncio.create_task(event.wait()) for event in (self._emptied, self._hurry)]
            await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        for stream in list(self._streams.values()):
            self._finish(stream, FinishReason.CANCELLED, "the server is shutting down")
        for call in self._calls:
            self._end(call, EngineUnavailable(self._why_not()))
        await self._supervisor.stop()

    # --- the supervisor's calls

    def on_ready(self) -> None:
        self._news_at = time.monotonic()
        self._send_waiting()

    def on_events(self, events: messages.Events) -> None:
        streams = self._streams
        now = time.monotonic()
        for emission in events.emissions:
            stream = streams.get(emission.id)
            if stream is None:  # its client has left
                continue
            probed = stream.strikes and emission.tokens
            stream.push(emission)
            if emission.tokens:
                self._recovery.produced()
            if stream.finished:
                self._durations.append(now - stream.submitted_at)
                self._remove(stream)
            elif probed:
                self._send_waiting()
        if events.emissions:
            self._news_at = now
        if events.stats is not None:
            self.stats = events.stats

    def on_task_news(self, news: messages.TaskUpdates) -> None:
        self._news_at = time.monotonic()
        for told in news.news:
            call = self._calls.get(told.id)
            if call is None:  # nobody waits for it any more
                continue
            probed = call.strikes
            call.take(told)
            self._recovery.produced()
            if call.future.done():
                self._drop(call)
            if probed:
                self._send_waiting()

    def on_death(self, reason: str) -> Verdict:
        streams = list(self._streams.values())
        verdict = self._recovery.died(streams, list(self._calls))
        for stream in streams:
            stream.sent = False
        for call in self._calls:
            call.restart()
        culprit = verdict.culprit
        if culprit is not None:
            # Clients are not told the reason: it may hold paths and lines of code.
            text = "the engine died more than once while it computed this request"
            if isinstance(culprit, PendingTask):
                log.error("[%s] %s is given up", self.name, type(culprit.work).__name__)
                self._end(culprit, TaskFailed("EngineDied", text))
            else:
                log.error("[%s] request %s is given up", self.name, culprit.request.id)
                self._finish(culprit, FinishReason.ERROR, text)
        return verdict

    def on_failed(self, reason: str) -> None:
        for stream in list(self._streams.values()):
            stream.fail(EngineUnavailable(self._why_not()))
            self._remove(stream)
        for call in self._calls:
            self._end(call, EngineUnavailable(self._why_not()))

    def on_tick(self) -> None:
        """While there is no engine to keep deadlines, keep them here."""
        if self._streams and self._supervisor.state == "restarting":
            now_ms = time.monotonic() * 1000
            for stream in list(self._streams.values()):
                deadline = stream.request.deadline_ms
                if deadline is not None and now_ms > deadline:
                    self._finish(stream, FinishReason.TIMEOUT)

    # --- helpers

    def _ensure_admits(self) -> None:
        if self.state not in ("ready", "restarting"):
            raise EngineUnavailable(self._why_not())
        self.ensure_room()
        if not self._streams and not self._calls:
            self._news_at = time.monotonic()

    def _send_waiting(self) -> None:
        """Tell the process of everything that it may have and does not know."""
        if self._supervisor.state != "ready":
            return
        for one in self._recovery.sendable([*self._streams.values(), *self._calls]):
            if one.sent:  # by a call of this from _finish
                continue
            if isinstance(one, PendingTask):
                one.sent = True
                self._tell(one, messages.SubmitTask(one.id, one.work))  # type: ignore[arg-type]
                continue
            if one.complete:
                self._finish(one, FinishReason.LENGTH)
                continue
            one.sent = True
            self._tell(one, messages.SubmitRequest(one.continuation()))
            if one.paused:
                self._tell(one, messages.Pause(one.request.id))

    def _tell(self, one: Stream | PendingTask, message: messages.ToEngine) -> None:
        if one.sent:
            self._supervisor.send(message)

    def _finish(self, stream: Stream, finish: FinishReason, error: str | None = None) -> None:
        """End a request that the engine has not ended."""
        self._tell(stream, messages.Cancel(stream.request.id))
        stream.end(finish, error)
        self._remove(stream)

    def _end(self, call: PendingTask, error: Exception) -> None:
        self._tell(call, messages.Cancel(call.id))
        call.fail(error)
        self._drop(call)

    def _remove(self, stream: Stream) -> None:
        if self._streams.pop(stream.request.id, None) is not None:
            self.slots.leave(stream)
        self._left(stream)

    def _drop(self, call: PendingTask) -> None:
        self._calls.remove(call)
        self._left(call)

    def _left(self, one: Stream | PendingTask) -> None:
        if not self._streams and not self._calls:
            self._emptied.set()
        if one.strikes:  # one that was being tried is gone: the next
            self._send_waiting()

    def _estimate_s(self, n: int) -> float:
        """Seconds until `n` of those that wait will have left the queue."""
        mean = sum(self._durations) / len(self._durations) if self._durations else 5.0
        return min(max(mean * n / self.params.parallel, 1.0), 120.0)

    def _why_not(self) -> str:
        if self._stopping:
            return "the server is shutting down"
        if self.state == "loading":
            return f"{self.name} is still loading ({self.progress:.0%})"
        return f"{self.name} has failed; the server's log says why"
