"""Keeps one engine process alive: starts it, watches it, restarts it after a crash or a hang.

States: loading → ready ⇄ restarting → failed; stopped from any of them. The supervisor knows nothing about
requests: its listener decides what happens after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from server.worker import messages as wire
from server.worker.errors import LoadFailed
from server.worker.requests.recovery import RestartDecision
from server.worker.supervision.child import EngineChild
from server.worker.supervision.liveness import Liveness
from server.worker.supervision.process import StartedProcess

log = logging.getLogger("ggserve.engine")

TICK_S = 0.25
LOST_DEVICE = ("DeviceError",)
NO_MEMORY = ("OutOfMemoryError", "MemoryError")  # others have it
PASSING_RETRY_S = 3.0  # between attempts to load again while either lasts
SPAWN_RETRY_S = 0.5  # after a process could not be started; doubles up to MAX_SPAWN_RETRY_S
MAX_SPAWN_RETRY_S = 10.0
TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
HUNG_LOADS = 2  # of the first load, before it has failed


class SupervisorListener(Protocol):
    """Is informed about the process."""

    def on_ready(self) -> None: ...
    def on_step_update(self, update: wire.StepUpdate) -> None: ...
    def on_task_updates(self, updates: wire.TaskUpdates) -> None: ...
    async def obstacle(self) -> str:
        """Why the process must not be started again; "": it may be."""

    def on_exit(self) -> RestartDecision: ...
    def on_failed(self) -> None: ...
    def on_tick(self) -> None: ...


class Supervisor:
    """One per model: `spawn` (optionally before the event loop runs), `start`, and finally `stop`.

    state, detail, progress: see `server.worker.client.EngineClient`. info: the model's description, once
    loaded. stalled: in words, that the process shows no progress, or "". liveness: decides that.
    waits_for_memory, blocked: see there, too.
    """

    def __init__(
        self,
        name: str,
        load: wire.LoadModel,
        listener: SupervisorListener,
        *,
        argv: Sequence[str],
        liveness: Liveness,
    ) -> None:
        self.state = "loading"
        self.detail = "not started"
        self.progress = 0.0
        self.info: dict[str, Any] | None = None
        self.restarts = 0
        self.stalled = ""
        self.waits_for_memory = True
        self.blocked = False
        self._name, self._listener, self._argv = name, listener, argv
        self.load = load  # what the next process loads
        self._tick_s = min(TICK_S, liveness.interval_s)
        self._liveness = liveness
        self._child: EngineChild | None = None
        self._jobs: list[asyncio.Task[None]] = []
        self._first_load = asyncio.Event()  # has succeeded or failed
        self._load_failure: LoadFailed | None = None
        self._exit_reason = ""  # what is known of it before the process has exited
        self._must_wait = False
        self._hung = False  # the process has been killed for it
        self._n_hung_loads = 0

    @property
    def step_s(self) -> float:
        """How long the current step of the engine has run."""
        return self._liveness.step_s

    @property
    def pid(self) -> int | None:
        """Process id of the current process."""
        return self._child.pid if self._child else None

    def spawn(self, started: StartedProcess | None = None) -> None:
        """Let a process load unless there is one already: a new one, or `started`."""
        if self._child is None:
            self._hung = False
            self._child = EngineChild.spawn(self._name, self.load, self._argv, started)
            self._liveness.on_start()

    def start(self) -> None:
        """Begin to receive from the process and to watch it."""
        self.detail = "loading"
        try:
            self.spawn()
        except OSError as error:
            if error.errno not in TRANSIENT:
                self.give_up_loading(LoadFailed("OSError", f"cannot start an engine process: {error}"))
                return
        self._jobs = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch())]

    def send(self, message: wire.ToEngine) -> None:
        """Send a message. Never blocks; a message to a dead process is lost."""
        if self._child is not None:
            self._child.send(message)

    async def loaded(self) -> None:
        """Wait for the first load; raises LoadFailed if it fails."""
        await self._first_load.wait()
        if self._load_failure is not None:
            raise self._load_failure

    def give_up_loading(self, failure: LoadFailed) -> None:
        """Give up the first load; without effect after it has succeeded."""
        if not self._first_load.is_set():
            self._load_failure = failure
            self.fail(str(failure))
            self._first_load.set()

    async def stop(self) -> None:
        """End the process: with a message if it listens, otherwise with a signal."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self.give_up_loading(LoadFailed("Stopped", "stopped while loading"))
        if self._child is not None:
            if self.state == "ready" and not self.stalled:
                self._child.send(wire.Shutdown())
            else:
                self._child.kill()
            await self._child.reap()
            self._child = None
        self.state = self.detail = "stopped"

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def check_alive(self) -> None:
        """Report a process that shows no progress, and eventually kill it."""
        if self.state == "failed" or self._child is None or self._hung:
            return
        verdict = self._liveness.check()
        if verdict.reason and not self.stalled:
            log.error("[%s] %s", self._name, verdict.reason)
        elif self.stalled and not verdict.reason:
            log.warning("[%s] the engine continues", self._name)
        self.stalled = verdict.reason
        if verdict.hung:
            self._hung = True  # what it still sends, if it should wake up, is not looked at any more
            self._exit_reason = f"{verdict.reason}, and was killed"
            self._liveness.on_killed()
            self._set_restarting()
            self._child.kill()

    def _set_restarting(self) -> None:
        if self.state == "ready":
            self.state, self.detail, self.progress = "restarting", "the engine is restarting", 0.0

    def fail(self, reason: str) -> None:
        """Start no further processes."""
        if self._child is not None:
            self._child.kill()
        self.state, self.detail = "failed", reason
        self._listener.on_failed()

    async def _keep_alive(self) -> None:
        try:
            while True:
                reason = await self._run_child()
                if not self._first_load.is_set():
                    self._n_hung_loads += self._hung
                    if not self._hung or self._n_hung_loads >= HUNG_LOADS:
                        self.give_up_loading(LoadFailed("EngineDied", reason))
                if self.state == "failed":
                    return
                if obstacle := await self._listener.obstacle():
                    log.error("[%s] %s; %s", self._name, reason, obstacle)
                    self.fail(obstacle)
                    return
                if self._must_wait:  # not the engine's fault, and it may pass
                    if not self.blocked:
                        log.error("[%s] %s; retrying every %.0f s", self._name, reason, PASSING_RETRY_S)
                    self.blocked, self.detail = True, reason
                    await asyncio.sleep(PASSING_RETRY_S)
                    continue
                self.blocked = False
                log.error("[%s] %s", self._name, reason)
                decision = self._listener.on_exit()
                if decision.give_up:
                    self.fail(f"the engine keeps failing: {reason}")
                    return
                await asyncio.sleep(decision.delay_s)
                self.restarts += 1
        except Exception as error:
            log.exception("[%s] cannot keep the engine process alive", self._name)
            self.fail(f"cannot keep the engine process alive: {error}")

    async def _start_child(self) -> EngineChild:
        """Start a process and receive from it.

        Retried until it works, since files or memory may be scarce.
        """
        delay_s = SPAWN_RETRY_S
        while True:
            try:
                self.spawn()
                assert self._child is not None
                await self._child.attach(self._on_messages)
                return self._child
            except OSError as error:
                log.error(
                    "[%s] cannot start an engine process: %s; trying again in %.1f s",
                    self._name,
                    error.strerror or error,
                    delay_s,
                )
            if self._child is not None:
                child, self._child = self._child, None
                child.kill()
                with contextlib.suppress(OSError, RuntimeError):
                    await child.reap()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_SPAWN_RETRY_S)

    async def _run_child(self) -> str:
        """Run a process until it exits. Returns the exit reason."""
        self._exit_reason = ""
        self._must_wait = False
        child = await self._start_child()
        await child.disconnected()
        self._set_restarting()
        self.stalled = ""
        self._child = None
        exit_reason = await child.reap()
        return self._exit_reason or exit_reason

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._listener.on_tick()
            self.check_alive()

    def _on_messages(self, messages: list[wire.ToServer]) -> None:
        if self._hung:
            return
        for message in messages:
            if type(message) is wire.Heartbeat:
                self._liveness.on_heartbeat(message)
                continue
            self._liveness.on_progress()
            if type(message) is wire.StepUpdate:
                self._listener.on_step_update(message)
            elif type(message) is wire.TaskUpdates:
                self._listener.on_task_updates(message)
            else:
                self._on_other(message)

    def _on_other(self, message: wire.ToServer) -> None:
        match message:
            case wire.LoadStatus(fraction, text):
                self.progress = fraction
                if self.state == "loading":
                    self.detail = text
            case wire.Ready(info):
                if self.state == "restarting":
                    log.warning("[%s] the engine has been restarted", self._name)
                self.info = info
                self._liveness.on_loaded(info)
                self.state, self.detail, self.progress = "ready", "ready", 1.0
                self.blocked = False
                self._first_load.set()
                self._listener.on_ready()
            case wire.LoadFailure(kind, text):
                self._exit_reason = text
                passing = LOST_DEVICE + NO_MEMORY if self.waits_for_memory else LOST_DEVICE
                self._must_wait = kind in passing and self._first_load.is_set()
                self.give_up_loading(LoadFailed(kind, text))
            case wire.Fatal(text):
                self._exit_reason = text
