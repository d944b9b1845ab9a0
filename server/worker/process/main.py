"""The engine process, which holds one model: `python -m server.worker.process.main --fd N`.

One thread does all the work: between two steps it handles messages from the server without blocking; with
nothing to compute it blocks in select. A second thread waits for the server to close its end of the socket
and then exits the process at once, whatever the first thread is doing, so no engine outlives its server. A
third thread sends heartbeats (`pulse`).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine.config import ModelParameters
from engine.errors import EngineError, ModelError
from engine.tasks.types import AnyTask, ResultChunk, TaskUpdate
from engine.types import EngineStats, FinishReason, Request, StepOutput
from server.worker import messages, transport
from server.worker.process.pulse import Pulse

log = logging.getLogger("engine")

STATS_EVERY_S = 0.1
LOAD_STATUS_EVERY_S = 0.05
NOTHING_COMPUTED_S = 0.01  # wait before the next step when sequences wait for free cells
ONLY_DEADLINES_S = 0.1  # and when all are paused: nothing to compute, but deadlines pass
_READ = 1 << 18  # bytes
MAX_CHUNK = 4 << 20  # bytes of a result in one frame


class SchedulerInterface(Protocol):
    """The part of `engine.scheduler.scheduler.Scheduler` that is used here."""

    @property
    def has_work(self) -> bool: ...
    @property
    def n_rows(self) -> int: ...
    def submit(self, request: Request, /) -> object: ...
    def cancel(self, id: str, /) -> object: ...
    def pause(self, id: str, /) -> object: ...
    def resume(self, id: str, /) -> object: ...
    def step(self) -> list[StepOutput]: ...
    def stats(self) -> EngineStats: ...


class TaskRunnerInterface(Protocol):
    """The part of `engine.tasks.runner.TaskRunner` that is used here."""

    @property
    def has_work(self) -> bool: ...
    @property
    def n_rows(self) -> int: ...
    def submit(self, id: str, task: AnyTask, /) -> object: ...
    def cancel(self, id: str, /) -> object: ...
    def yield_cells(self) -> object: ...
    def step(self, busy: bool, /) -> list[TaskUpdate]: ...


class ModelInterface(Protocol):
    """The part of `engine.engine.Model` that is used here."""

    @property
    def generates(self) -> bool: ...
    def scheduler(self) -> SchedulerInterface: ...
    def tasks(self) -> TaskRunnerInterface: ...
    def describe(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


LoadFunction = Callable[[str, ModelParameters, Callable[[float, str], None]], ModelInterface]


def load_model(path: str, params: ModelParameters, progress: Callable[[float, str], None]) -> ModelInterface:
    """Load with the real engine.

    It is imported here, so that a failing import is reported as a LoadFailure.
    """
    from engine.engine import load

    return load(path, params, progress=progress)


class NoScheduler:
    """The scheduler of a model that cannot generate text."""

    has_work = False
    n_rows = 0

    def submit(self, request: Request) -> None:
        raise ModelError("this model makes embeddings; it cannot generate text")

    def cancel(self, id: str) -> None: ...
    def pause(self, id: str) -> None: ...
    def resume(self, id: str) -> None: ...
    def step(self) -> list[StepOutput]:
        return []

    def stats(self) -> EngineStats:
        return EngineStats()


class EngineProcess:
    """The main loop: receives messages, computes a step, sends the results.

    wait_readable: blocks until the socket has data, for at most the given seconds; None: no limit.
    """

    def __init__(
        self,
        sock: socket.socket,
        load: LoadFunction = load_model,
        *,
        wait_readable: Callable[[socket.socket, float | None], bool] = transport.wait_readable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = sock
        self._load, self._wait_readable, self._clock = load, wait_readable, clock
        self._reader = messages.engine_reader()
        self._unfinished: set[str] = set()  # ids of requests
        self._refused: list[StepOutput] = []  # to be sent with the next outputs
        self._stats_due = 0.0
        self._stop = False
        self._send_lock = threading.Lock()  # heartbeats come from another thread
        self._pulse = Pulse(1.0, self._send, clock=clock)

    def run(self) -> int:
        """Serve until the server sends Shutdown or disconnects. Returns the exit status."""
        with contextlib.suppress(ConnectionError):
            load = self._receive_load()
            if load is None:
                return 0
            logging.getLogger().setLevel(load.log_level.upper())
            self._pulse = Pulse(load.heartbeat_s, self._send, clock=self._clock)
            self._pulse.start()
            try:
                return self._load_and_serve(load)
            finally:
                self._pulse.stop()
        return 0

    def _load_and_serve(self, load: messages.LoadModel) -> int:
        model = self._load_model(load)
        if model is None:
            return 1
        try:
            self._serve(model.scheduler() if model.generates else NoScheduler(), model.tasks())
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("the engine cannot continue")
            self._send(messages.Fatal(f"{type(error).__name__}: {error}"))
            return 1
        finally:
            model.close()
        return 0

    def _send(self, message: messages.ToServer) -> None:
        frame = messages.encode(message)
        with self._send_lock:
            self._socket.sendall(frame)

    def _receive_load(self) -> messages.LoadModel | None:
        """The first message. None: the server has disconnected."""
        while data := self._socket.recv(_READ):
            for message in self._reader.feed(data):
                if not isinstance(message, messages.LoadModel):
                    kind = type(message).__name__
                    raise messages.ProtocolError(f"the first message is {kind}, not LoadModel")
                return message
        return None

    def _load_model(self, load: messages.LoadModel) -> ModelInterface | None:
        """The loaded model. None: loading failed, which has been reported."""
        last = 0.0

        def progress(fraction: float, text: str) -> None:
            nonlocal last
            now = self._clock()
            if now - last >= LOAD_STATUS_EVERY_S or fraction >= 1.0:
                last = now
                self._send(messages.LoadStatus(fraction, text))

        self._pulse.begin()
        try:
            model = self._load(load.path, load.params, progress)
            self._send(messages.Ready(model.describe()))
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self._send(messages.LoadFailure(type(error).__name__, f"{load.path}: {error.strerror or error}"))
        except EngineError as error:
            log.debug("loading failed", exc_info=True)
            self._send(messages.LoadFailure(type(error).__name__, str(error)))
        except Exception as error:
            log.exception("loading failed")
            self._send(messages.LoadFailure(type(error).__name__, f"{type(error).__name__}: {error}"))
        else:
            return model
        finally:
            self._pulse.end_loading()
        return None

    def _serve(self, scheduler: SchedulerInterface, tasks: TaskRunnerInterface) -> None:
        """Alternate steps of the scheduler with steps of tasks."""
        self._pulse.rows = lambda: max(scheduler.n_rows, tasks.n_rows)
        wait_s: float | None = None
        self._send(messages.StepUpdate([], scheduler.stats()))  # for /metrics, before the first request
        while self._receive(scheduler, tasks, wait_s):
            outputs: list[StepOutput] = []
            if self._unfinished:
                tasks.yield_cells()
                outputs = scheduler.step()
            for output in outputs:
                if output.finish is not None:
                    self._unfinished.discard(output.id)
            computed = bool(outputs)
            if self._refused:
                outputs = self._refused + outputs
                self._refused = []
            idle = not self._unfinished
            now = self._clock()
            if outputs or (idle and wait_s is not None):
                stats = None
                if idle or now >= self._stats_due:
                    stats = scheduler.stats()
                    self._stats_due = now + STATS_EVERY_S
                self._send(messages.StepUpdate(outputs, stats))
            if tasks.has_work:
                updates = tasks.step(not idle)
                self._send_task_updates(updates)
                computed = computed or bool(updates)
            if idle and not tasks.has_work:
                wait_s = None
            elif computed:
                wait_s = 0.0
            else:
                busy = scheduler.has_work or tasks.has_work
                wait_s = NOTHING_COMPUTED_S if busy else ONLY_DEADLINES_S

    def _send_task_updates(self, updates: list[TaskUpdate]) -> None:
        """Send in frames of bounded size, however large the results of one step are."""
        batch: list[TaskUpdate] = []
        size = 0
        for update in updates:
            chunks: list[ResultChunk] = []
            for chunk in update.chunks:
                for start in range(0, len(chunk.data), MAX_CHUNK):
                    data = chunk.data[start : start + MAX_CHUNK]
                    if size and size + len(data) > MAX_CHUNK:
                        self._send(messages.TaskUpdates([*batch, TaskUpdate(update.id, chunks)]))
                        batch, chunks, size = [], [], 0
                    chunks.append(ResultChunk(chunk.input, data))
                    size += len(data)
            batch.append(TaskUpdate(update.id, chunks, update.result, update.failure))
        if batch:
            self._send(messages.TaskUpdates(batch))

    def _receive(
        self, scheduler: SchedulerInterface, tasks: TaskRunnerInterface, wait_s: float | None
    ) -> bool:
        """Handle all messages that have arrived, waiting at most `wait_s` for the first. False: exit."""
        while self._wait(wait_s):
            data = self._socket.recv(_READ)
            if not data:
                return False
            for message in self._reader.feed(data):
                self._handle(scheduler, tasks, message)
            if self._stop:
                return False
            wait_s = 0.0
        return True

    def _wait(self, wait_s: float | None) -> bool:
        """Whether the socket becomes readable within `wait_s`."""
        self._pulse.end()
        readable = self._wait_readable(self._socket, wait_s)
        self._pulse.begin()
        return readable

    def _handle(
        self, scheduler: SchedulerInterface, tasks: TaskRunnerInterface, message: messages.ToEngine
    ) -> None:
        match message:
            case Request():
                self._submit(scheduler, message)
            case messages.SubmitTask(id, task):
                tasks.submit(id, task)
            case messages.Cancel(id):
                scheduler.cancel(id)
                tasks.cancel(id)
            case messages.Pause(id):
                scheduler.pause(id)
            case messages.Resume(id):
                scheduler.resume(id)
            case messages.Shutdown():
                self._stop = True
            case messages.LoadModel():
                raise messages.ProtocolError("a second LoadModel")

    def _submit(self, scheduler: SchedulerInterface, request: Request) -> None:
        try:
            scheduler.submit(request)
        except Exception as error:  # concerns this request only
            if not isinstance(error, EngineError):
                log.exception("request %s was refused", request.id)
            text = str(error) or type(error).__name__
            self._refused.append(StepOutput(id=request.id, finish=FinishReason.ERROR, error=text))
        else:
            self._unfinished.add(request.id)


class _LineFormatter(logging.Formatter):
    """`<LEVEL>logger: message` on one line, which the server parses (`server.logs.relay`)."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"<{record.levelno}>{record.name}: " + text.replace("\\", "\\\\").replace("\n", "\\n")


def prepare_process() -> None:
    """Set up logging to stderr, signals and crash reports."""
    faulthandler.enable()  # a traceback on stderr at SIGSEGV and SIGBUS
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # the server drains, then sends Shutdown or disconnects
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logging.basicConfig(handlers=[handler])
    # When memory runs out the kernel should kill the engine, which is restarted, rather than the server.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main(arguments: list[str] | None = None, load: LoadFunction = load_model) -> int:
    """Entry point. `--fd`: the inherited end of the socket pair."""
    parser = argparse.ArgumentParser(prog="python -m server.worker.process.main", description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    options = parser.parse_args(arguments)
    prepare_process()
    sock = socket.socket(fileno=options.fd)
    sock.set_inheritable(False)  # a process that a driver starts must not hold the connection open
    transport.watch(sock, lambda: os._exit(0))  # even during a computation
    if load is load_model:
        # While the server reads its options. A failing import is reported when the model is loaded.
        with contextlib.suppress(Exception):
            importlib.import_module("engine.engine")
    return EngineProcess(sock, load).run()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads of a backend must neither delay nor crash the exit
