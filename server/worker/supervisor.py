"""Keeps one engine process alive: starts it, watches it, restarts it after a crash or a hang.

States: loading → ready ⇄ restarting → failed; stopped from any of them. The supervisor knows nothing about
requests: its listener decides what happens after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server.worker import messages as wire
from server.worker.child import EngineChild
from server.worker.errors import LoadFailed
from server.worker.recovery import RestartDecision

log = logging.getLogger("ggserve.engine")

KILL_AFTER_STALLS = 5  # times stall_s without an answer: kill the process, which is then restarted
TICK_S = 1.0
DEVICE_RETRY_S = 3.0  # between attempts to reload while a device, or a remote machine, is gone


class SupervisorListener(Protocol):
    """Who is told about the process."""

    def on_ready(self) -> None: ...
    def on_step_update(self, update: wire.StepUpdate) -> None: ...
    def on_task_updates(self, updates: wire.TaskUpdates) -> None: ...
    def on_exit(self) -> RestartDecision: ...
    def on_failed(self) -> None: ...
    def on_tick(self) -> None: ...


class Supervisor:
    """One per model: `spawn` (optionally before the event loop runs), `start`, and finally `stop`.

    state, detail, progress: as of `server.worker.client.EngineClient`. info: the model's description, once
    loaded. unresponsive: no answer for `stall_s` seconds.
    """

    def __init__(
        self,
        name: str,
        load: wire.LoadModel,
        listener: SupervisorListener,
        *,
        argv: Sequence[str],
        stall_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = "loading"
        self.detail = "not started"
        self.progress = 0.0
        self.info: dict[str, Any] | None = None
        self.restarts = 0
        self.unresponsive = False
        self._name, self._load, self._listener = name, load, listener
        self._argv, self._stall_s, self._clock = argv, stall_s, clock
        self._child: EngineChild | None = None
        self._jobs: list[asyncio.Task[None]] = []
        self._first_load = asyncio.Event()  # has succeeded or failed
        self._load_failure: LoadFailed | None = None
        self._exit_reason = ""  # what is known of it before the process has exited
        self._device_lost = False
        self._answered_at = 0.0
        self._pinged_at: float | None = None
        self._n_pings = 0

    @property
    def pid(self) -> int | None:
        """Of the current process."""
        return self._child.pid if self._child else None

    def spawn(self) -> None:
        """Start a process unless there is one."""
        if self._child is None:
            self._child = EngineChild.spawn(self._name, self._load, self._argv)

    def start(self) -> None:
        """Begin to receive from the process and to watch it."""
        self.detail = "loading"
        try:
            self.spawn()
        except OSError as error:
            self.give_up_loading(LoadFailed("OSError", f"cannot start an engine process: {error}"))
            return
        self._jobs = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch())]

    def send(self, message: wire.ToEngine) -> None:
        """Never blocks. A message to a process that has died is lost."""
        if self._child is not None:
            self._child.send(message)

    async def loaded(self) -> None:
        """Wait for the first load; raises LoadFailed if it fails."""
        await self._first_load.wait()
        if self._load_failure is not None:
            raise self._load_failure

    def give_up_loading(self, failure: LoadFailed) -> None:
        """The first load has failed; without effect after it has succeeded."""
        if not self._first_load.is_set():
            self._load_failure = failure
            if self._child is not None:
                self._child.kill()
            self._fail(str(failure))
            self._first_load.set()

    async def stop(self) -> None:
        """End the process: by a message if it listens, otherwise by a signal."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self.give_up_loading(LoadFailed("Stopped", "stopped while loading"))
        if self._child is not None:
            if self.state == "ready":
                self._child.send(wire.Shutdown())
            else:
                self._child.kill()
            await self._child.reap()
            self._child = None
        self.state = self.detail = "stopped"

    def check_responsive(self) -> None:
        """Ping a silent process, report it after `stall_s`, kill it after KILL_AFTER_STALLS times that.

        Called every second or more often. The process answers between two steps.
        """
        if self.state != "ready" or self._child is None:
            return
        now = self._clock()
        if self._pinged_at is None:
            if now - self._answered_at >= self._stall_s / 4:
                self._n_pings += 1
                self._child.send(wire.Ping(self._n_pings))
                self._pinged_at = now
            return
        silence_s = now - self._pinged_at
        if silence_s >= self._stall_s and not self.unresponsive:
            self.unresponsive = True
            log.error("[%s] the engine has not answered for %.0f s", self._name, silence_s)
        if silence_s >= self._stall_s * KILL_AFTER_STALLS:
            self._exit_reason = f"the engine did not answer for {silence_s:.0f} s and was killed"
            self._child.kill()

    def _fail(self, reason: str) -> None:
        self.state, self.detail = "failed", reason
        self._listener.on_failed()

    async def _keep_alive(self) -> None:
        try:
            while True:
                reason = await self._run_child()
                if not self._first_load.is_set():
                    self.give_up_loading(LoadFailed("EngineDied", reason))
                if self.state == "failed":
                    return
                if self._device_lost:  # not the engine's fault, and the device may come back
                    if self.detail != reason:
                        log.error("[%s] %s; retrying every %.0f s", self._name, reason, DEVICE_RETRY_S)
                    self.detail = reason
                    await asyncio.sleep(DEVICE_RETRY_S)
                    self.spawn()
                    continue
                log.error("[%s] %s", self._name, reason)
                decision = self._listener.on_exit()
                if decision.give_up:
                    self._fail(f"the engine keeps failing: {reason}")
                    return
                await asyncio.sleep(decision.delay_s)
                self.restarts += 1
                self.spawn()
        except Exception as error:
            log.exception("[%s] cannot keep the engine process alive", self._name)
            self._fail(f"cannot keep the engine process alive: {error}")

    async def _run_child(self) -> str:
        """Receive from the process until it exits; the reason of its exit."""
        assert self._child is not None
        self._exit_reason = ""
        self._device_lost = False
        await self._child.attach(self._on_messages)
        await self._child.disconnected()
        if self.state == "ready":
            self.state, self.detail, self.progress = "restarting", "the engine is restarting", 0.0
        self._pinged_at = None
        self.unresponsive = False
        child, self._child = self._child, None
        exit_reason = await child.reap()
        return self._exit_reason or exit_reason

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(TICK_S, self._stall_s / 4))
            self._listener.on_tick()
            self.check_responsive()

    def _on_messages(self, messages: list[wire.ToServer]) -> None:
        self._answered_at = self._clock()
        self._pinged_at = None  # any message counts as an answer
        self.unresponsive = False
        for message in messages:
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
                self.state, self.detail, self.progress = "ready", "ready", 1.0
                self._first_load.set()
                self._listener.on_ready()
            case wire.LoadFailure(kind, text):
                self._exit_reason = text
                self._device_lost = kind == "DeviceError" and self._first_load.is_set()
                self.give_up_loading(LoadFailed(kind, text))
            case wire.Fatal(text):
                self._exit_reason = text
