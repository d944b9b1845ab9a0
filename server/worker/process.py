"""The child process that holds one model: `python -m server.worker.process --fd N`.

One thread does everything: between two steps it takes what the server sent, without blocking; with nothing
to compute it sleeps in select. A second thread only watches for the server's end of the socket to close,
and then ends the process at once, whatever the first is doing: no engine outlives its server.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine.config import ModelParameters
from engine.errors import EngineError, ModelError
from engine.tasks.types import AnyTask, ResultChunk, TaskUpdate
from engine.types import EngineStats, FinishReason, Request, StepOutput
from server.worker import messages, transport

log = logging.getLogger("engine")

STATS_EVERY_S = 0.1
PROGRESS_EVERY_S = 0.05
NOTHING_COMPUTED_S = 0.01  # waiting sessions whose cells are not free yet: look again after this
ONLY_DEADLINES_S = 0.1  # all sessions are paused: nothing to compute, but their deadlines pass
_READ = 1 << 18
PIECE = 4 << 20  # bytes of a result in one frame


class Scheduler(Protocol):
    """The part of `engine.scheduler.scheduler.Scheduler` that is used here."""

    @property
    def has_work(self) -> bool: ...
    def submit(self, request: Request, /) -> object: ...
    def cancel(self, id: str, /) -> object: ...
    def pause(self, id: str, /) -> object: ...
    def resume(self, id: str, /) -> object: ...
    def step(self) -> list[StepOutput]: ...
    def stats(self) -> EngineStats: ...


class TaskRunner(Protocol):
    """The part of `engine.tasks.runner.Tasks` that is used here."""

    @property
    def has_work(self) -> bool: ...
    def submit(self, id: str, work: AnyTask, /) -> object: ...
    def cancel(self, id: str, /) -> object: ...
    def yield_cells(self) -> object: ...
    def step(self, busy: bool, /) -> list[TaskUpdate]: ...


class Model(Protocol):
    """The part of `engine.Model` that is used here."""

    @property
    def generates(self) -> bool: ...
    def scheduler(self) -> Scheduler: ...
    def tasks(self) -> TaskRunner: ...
    def describe(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


Load = Callable[[str, ModelParameters, Callable[[float, str], None]], Model]


def load_model(path: str, params: ModelParameters, progress: Callable[[float, str], None]) -> Model:
    """Load with the real engine. Imported here, so that its absence is a message and not a dead process."""
    from engine.engine import load

    return load(path, params, progress=progress)


class NoScheduler:
    """Of a model that makes no text."""

    has_work = False

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
    """The loop: frames in, steps, frames out."""

    def __init__(self, sock: socket.socket, load: Load = load_model) -> None:
        self._socket = sock
        self._load = load
        self._reader = messages.engine_reader()
        self._live: set[str] = set()  # submitted and not finished
        self._refused: list[StepOutput] = []
        self._stats_due = 0.0
        self._stop = False

    def run(self) -> int:
        """Serve until the server says so or goes away; the exit status."""
        with contextlib.suppress(ConnectionError):
            first = self._first_frame()
            if first is None:
                return 0
            model = self._loaded(first)
            if model is None:
                return 1
            try:
                self._serve(model.scheduler() if model.generates else NoScheduler(), model.tasks())
            except ConnectionError:
                raise
            except Exception as error:
                log.exception("the engine cannot go on")
                self._send(messages.Fatal(f"{type(error).__name__}: {error}"))
                return 1
            finally:
                model.close()
        return 0

    def _send(self, message: messages.ToServer) -> None:
        self._socket.sendall(messages.encode(message))

    def _first_frame(self) -> messages.Load | None:
        while data := self._socket.recv(_READ):
            for message in self._reader.feed(data):
                if not isinstance(message, messages.Load):
                    raise messages.ProtocolError(f"the first frame is {type(message).__name__}, not Load")
                return message
        return None

    def _loaded(self, order: messages.Load) -> Model | None:
        last = 0.0

        def progress(fraction: float, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PROGRESS_EVERY_S or fraction >= 1.0:
                last = now
                self._send(messages.Progress(fraction, text))

        try:
            model = self._load(order.path, order.params, progress)
            self._send(messages.Ready(model.describe()))
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self._send(messages.LoadFailed(type(error).__name__, f"{order.path}: {error.strerror or error}"))
        except EngineError as error:
            log.debug("loading failed", exc_info=True)
            self._send(messages.LoadFailed(type(error).__name__, str(error)))
        except Exception as error:
            log.exception("loading failed")
            self._send(messages.LoadFailed(type(error).__name__, f"{type(error).__name__}: {error}"))
        else:
            return model
        return None

    def _serve(self, scheduler: Scheduler, tasks: TaskRunner) -> None:
        """Steps of streams and of other work take turns."""
        wait: float | None = None
        while self._receive(scheduler, tasks, wait):
            emissions: list[StepOutput] = []
            if self._live:
                tasks.yield_cells()
                emissions = scheduler.step()
            for emission in emissions:
                if emission.finish is not None:
                    self._live.discard(emission.id)
            computed = bool(emissions)
            if self._refused:
                emissions = self._refused + emissions
                self._refused = []
            idle = not self._live
            now = time.monotonic()
            if emissions or (idle and wait is not None):
                stats = None
                if idle or now >= self._stats_due:
                    stats = scheduler.stats()
                    self._stats_due = now + STATS_EVERY_S
                self._send(messages.Events(emissions, stats))
            if tasks.has_work:
                news = tasks.step(not idle)
                self._tell(news)
                computed = computed or bool(news)
            if idle and not tasks.has_work:
                wait = None
            elif computed:
                wait = 0.0
            else:
                busy = scheduler.has_work or tasks.has_work
                wait = NOTHING_COMPUTED_S if busy else ONLY_DEADLINES_S

    def _tell(self, news: list[TaskUpdate]) -> None:
        """Frames of bounded size, however much one step brought."""
        small: list[TaskUpdate] = []
        size = 0
        for told in news:
            pieces: list[ResultChunk] = []
            for piece in told.pieces:
                for start in range(0, len(piece.data), PIECE):
                    data = piece.data[start : start + PIECE]
                    if size and size + len(data) > PIECE:
                        self._send(messages.TaskUpdates([*small, TaskUpdate(told.id, pieces)]))
                        small, pieces, size = [], [], 0
                    pieces.append(ResultChunk(piece.input, data))
                    size += len(data)
            small.append(TaskUpdate(told.id, pieces, told.result, told.failure))
        if small:
            self._send(messages.TaskUpdates(small))

    def _receive(self, scheduler: Scheduler, tasks: TaskRunner, wait: float | None) -> bool:
        """Take what has arrived, waiting for it at most `wait` seconds; False: leave."""
        while select.select([self._socket], [], [], wait)[0]:
            data = self._socket.recv(_READ)
            if not data:
                return False
            for message in self._reader.feed(data):
                self._handle(scheduler, tasks, message)
            if self._stop:
                return False
            wait = 0.0
        return True

    def _handle(self, scheduler: Scheduler, tasks: TaskRunner, message: messages.ToEngine) -> None:
        match message:
            case messages.SubmitRequest(request):
                self._submit(scheduler, request)
            case messages.SubmitTask(id, work):
                tasks.submit(id, work)
            case messages.Cancel(id):
                scheduler.cancel(id)
                tasks.cancel(id)
            case messages.Pause(id):
                scheduler.pause(id)
            case messages.Resume(id):
                scheduler.resume(id)
            case messages.Ping(n):
                self._send(messages.Pong(n))
            case messages.Shutdown():
                self._stop = True
            case messages.Load():
                raise messages.ProtocolError("a second Load")

    def _submit(self, scheduler: Scheduler, request: Request) -> None:
        try:
            scheduler.submit(request)
        except Exception as error:  # this request only; the others are not concerned
            if not isinstance(error, EngineError):
                log.exception("request %s was refused", request.id)
            text = str(error) or type(error).__name__
            self._refused.append(StepOutput(id=request.id, finish=FinishReason.ERROR, error=text))
        else:
            self._live.add(request.id)


class _LineFormatter(logging.Formatter):
    """`<LEVEL>logger: message` on one line, which the server reads back (`server.logs`)."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"<{record.levelno}>{record.name}: " + text.replace("\\", "\\\\").replace("\n", "\\n")


def prepare_process(log_level: str) -> None:
    """What a child needs before its first frame: logging to stderr, signals, crash reports."""
    faulthandler.enable()  # a SEGV or BUS says where, on stderr, before it kills
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # the server drains, then sends Shutdown or closes
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    # When memory runs out the kernel shall take the engine, which is restarted, not the server.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main(arguments: list[str] | None = None, load: Load = load_model) -> int:
    """Entry point. `--fd`: the inherited end of a socket pair."""
    parser = argparse.ArgumentParser(prog="python -m server.worker.process", description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    prepare_process(options.log_level)
    sock = socket.socket(fileno=options.fd)
    transport.watch(sock, lambda: os._exit(0))  # even in the middle of a computation
    return EngineProcess(sock, load).run()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads of a backend must not delay or crash the exit
