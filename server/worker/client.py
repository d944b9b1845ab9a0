"""The server's handle on one model: admits requests and tasks, loads the engine process and stops it.

When the process dies, unfinished requests remain (`requests.in_flight`): the next process gets each of them
again with the tokens that its client already has, so the client sees a pause and then the rest of the same
text. Everything runs in the event loop, and nothing blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from engine.tasks.types import Task
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.types import EngineStats, Request
from server.config.settings import Settings
from server.worker import messages
from server.worker.errors import EngineUnavailable, LoadFailed, QueueFull
from server.worker.model_file import ModelFile
from server.worker.requests.in_flight import InFlight
from server.worker.requests.recovery import RestartDecision
from server.worker.requests.slots import Slots
from server.worker.requests.stream import RequestInfo, Stream
from server.worker.supervision.liveness import Liveness
from server.worker.supervision.process import DEFAULT_ARGV, StartedProcess
from server.worker.supervision.supervisor import Supervisor

log = logging.getLogger("ggserve.engine")
NOT_ADVANCED = 6  # times the engine timeout without progress of any request: stalled
R = TypeVar("R")


class EngineClient:
    """One per served model: `start` once, `generate` and `run` often, `stop` once.

    state: loading | ready | restarting | failed | stopped. detail: the reason, or the load progress; for
    operators only, since it may contain paths. argv: the command of the engine process. waits_for_memory:
    whether a restart for which there is none is tried until there is, or given up like any other.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        settings: Settings,
        *,
        argv: Sequence[str] = DEFAULT_ARGV,
        load_tokenizer: Callable[[str], Any] = load_tokenizer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.path = name, str(path)
        self.params = settings.model_parameters()
        self.stats = EngineStats()
        self._max_queue, self._timeout_s = settings.max_queue, settings.engine_timeout_s
        self._load_tokenizer, self._clock = load_tokenizer, clock
        self._tokenizer: Any = None
        self._file: ModelFile | None = None  # as it is loaded
        self.replaced = False  # the file is another one by now, so the engine process was not started again
        liveness = Liveness(settings.engine_timeout_s, clock)
        load = messages.LoadModel(self.path, self.params, liveness.interval_s, settings.log_level)
        self._supervisor = Supervisor(name, load, self, argv=argv, liveness=liveness)
        self._in_flight = InFlight(
            name,
            self._supervisor,
            parallel=self.params.parallel,
            send_timeout_s=settings.send_timeout_s,
            clock=clock,
        )
        self._started = asyncio.Event()  # loaded, or failed to load
        self._failure: LoadFailed | None = None
        self._stopping = False
        self._stop_now = asyncio.Event()  # do not wait for running requests any longer

    def reload(self, settings: Settings) -> None:
        """Apply options that may change while the engine runs."""
        self._max_queue = settings.max_queue
        self._in_flight.send_timeout_s = settings.send_timeout_s
        self._supervisor.load = structs.replace(self._supervisor.load, log_level=settings.log_level)

    # --- state

    @property
    def waits_for_memory(self) -> bool:
        return self._supervisor.waits_for_memory

    @waits_for_memory.setter
    def waits_for_memory(self, waits: bool) -> None:
        self._supervisor.waits_for_memory = waits

    @property
    def blocked(self) -> bool:
        """Whether the model cannot be loaded again before a device or memory is back."""
        return self._supervisor.blocked

    @property
    def state(self) -> str:
        if self._stopping:
            return "stopped"
        state = self._supervisor.state
        # The tokenizer is loaded here, in a thread, while the process loads the weights.
        return "loading" if state == "ready" and not self._started.is_set() else state

    @property
    def detail(self) -> str:
        return "shutting down" if self._stopping else self._supervisor.detail

    @property
    def progress(self) -> float:
        """Load progress, 0 to 1."""
        return self._supervisor.progress

    @property
    def info(self) -> dict[str, Any] | None:
        """The model's description including its placement, once it is loaded."""
        return self._supervisor.info

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        """Process id of the current engine process."""
        return self._supervisor.pid

    @property
    def stalled(self) -> bool:
        """Whether the engine process shows no progress, or makes steps that advance no request."""
        if self._supervisor.stalled:
            return True
        if self.state != "ready" or not self._in_flight or self._in_flight.any_paused:
            return False  # a paused request may hold the memory for which the others wait
        if self._supervisor.step_s > self._timeout_s:
            return False  # one long step, which the supervisor judges
        return self._clock() - self._in_flight.advanced_at > self._timeout_s * NOT_ADVANCED

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise EngineUnavailable(f"{self.name} is still loading")
        tokenizer: Tokenizer = self._tokenizer
        return tokenizer

    @property
    def slots(self) -> Slots:
        return self._in_flight.slots

    @property
    def n_ctx(self) -> int:
        """The maximum context length of a request."""
        return int((self.info or {}).get("n_ctx") or self.params.context_size or 0)

    @property
    def max_batch_size(self) -> int:
        """The largest n_batch."""
        return int((self.info or {}).get("max_batch_tokens") or self.params.max_batch_tokens)

    def requests(self) -> list[RequestInfo]:
        """Running and waiting requests, oldest first."""
        return [stream.info(self.name) for stream in self._in_flight.streams]

    # --- requests and tasks

    def ensure_room(self, n: int = 1) -> None:
        """Raise QueueFull unless `n` more requests would be admitted now."""
        waiting = len(self._in_flight) - self.params.parallel
        if waiting + n > self._max_queue:
            delay_s = self._in_flight.mean_duration_s * n / self.params.parallel
            raise QueueFull(max(waiting, 0), min(max(delay_s, 1.0), 120.0))

    def generate(self, request: Request) -> Stream:
        """Admit a request. The caller iterates over the stream to its end, or closes it.

        Sets `request.slot`. Raises QueueFull, EngineUnavailable, or ValueError for an id that is in use.
        """
        self._ensure_admits()
        return self._in_flight.submit(request)

    async def run(self, task: Task[R]) -> R:
        """Run a task and return its result. Cancelling this call cancels the task.

        Raises QueueFull, EngineUnavailable, or TaskFailed with the engine's error.
        """
        self._ensure_admits()
        return await self._in_flight.run(task)

    def cancel(self, id: str) -> bool:
        """End a request from outside; its client gets CANCELLED. False: there is no such request."""
        return self._in_flight.cancel(id)

    def _ensure_admits(self) -> None:
        if self.state not in ("ready", "restarting"):
            raise EngineUnavailable(self._unavailable_reason())
        self.ensure_room()

    def _unavailable_reason(self) -> str:
        if self._stopping:
            return "the server is shutting down"
        if self.state == "loading":
            return f"{self.name} is still loading ({self.progress:.0%})"
        return f"{self.name} has failed; see the server's log"

    # --- start and stop

    def spawn(self, started: StartedProcess | None = None) -> None:
        """Let a process, a new one or `started`, begin to load. Optional; can be called before the event loop
        runs.
        """
        self._file = ModelFile(self.path)
        with contextlib.suppress(OSError):  # `start` tries again and reports it
            self._supervisor.spawn(started)

    async def start(self) -> None:
        """Load the model.

        Returns when requests can be served; raises LoadFailed if that will never happen.
        """
        self._file = self._file or ModelFile(self.path)
        self._supervisor.start()
        try:
            await asyncio.to_thread(self._file.read)
            self._tokenizer = await asyncio.to_thread(self._load_tokenizer, self.path)
        except OSError as error:
            text = f"{self.path}: {error.strerror or error}"
            self._supervisor.give_up_loading(LoadFailed(type(error).__name__, text))
        except Exception as error:
            log.debug("cannot load the tokenizer", exc_info=True)
            self._supervisor.give_up_loading(LoadFailed(type(error).__name__, str(error)))
        try:
            await self._supervisor.loaded()
            if await self.obstacle():
                text = f"{self.path}: the file changed while it was loaded"
                self._supervisor.fail(text)
                raise LoadFailed("ModelError", text)
        except LoadFailed as failure:
            self._failure = failure
        self._started.set()
        await self.wait_loaded()

    async def wait_loaded(self) -> None:
        """Wait until `start`, wherever it runs, has loaded the model. Raises LoadFailed as `start` does."""
        await self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop admitting, let running requests finish for `drain_s` seconds, then end the process.

        A second call with 0 ends the first call's wait.
        """
        if drain_s <= 0:
            self._stop_now.set()
        if self._stopping:
            return
        self._stopping = True
        if self._in_flight and self._supervisor.state in ("ready", "restarting"):
            events = (self._in_flight.empty, self._stop_now)
            waits = [asyncio.create_task(event.wait()) for event in events]
            await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        self._in_flight.cancel_all(EngineUnavailable(self._unavailable_reason()))
        await self._supervisor.stop()

    def kill(self) -> None:
        """End the process at once; `stop` must follow."""
        self._supervisor.kill()

    # --- called by the supervisor

    def on_ready(self) -> None:
        self._in_flight.on_ready()

    def on_step_update(self, update: messages.StepUpdate) -> None:
        self._in_flight.on_outputs(update.outputs)
        if update.stats is not None:
            self.stats = update.stats

    def on_task_updates(self, updates: messages.TaskUpdates) -> None:
        self._in_flight.on_task_updates(updates.updates)

    async def obstacle(self) -> str:
        """Why the engine must not be restarted: text tokenized for one model must not be continued by
        another.
        """
        if self._file is not None and not await asyncio.to_thread(self._file.is_same):
            self.replaced = True
            return f"{self.path}: the file was replaced since it was loaded"
        return ""

    def on_exit(self) -> RestartDecision:
        return self._in_flight.on_exit()

    def on_failed(self) -> None:
        self._in_flight.fail_all(EngineUnavailable(self._unavailable_reason()))

    def on_tick(self) -> None:
        self._in_flight.expire()
