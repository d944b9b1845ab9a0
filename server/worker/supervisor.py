"""Keeps one engine process alive: loads, listens, notices death and silence, loads again.

States: loading → ready ⇄ restarting → failed; stopped from any of them. Knows nothing of requests: what
to do after a death is asked of the owner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server.worker import messages as wire
from server.worker.child import EngineChild
from server.worker.recovery import Verdict

log = logging.getLogger("ggserve.engine")

KILL_AFTER_STALLS = 5  # silent for so many times stall_s: kill, to be restarted
TICK_S = 1.0
AWAITING_DEVICE_S = 3.0  # between two attempts to load again while a device, or another machine, is gone


class LoadFailed(Exception):
    """The model could not be loaded. `kind` is the class of the engine's error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Owner(Protocol):
    """Whom the supervisor works for."""

    def on_ready(self) -> None: ...
    def on_events(self, events: wire.Events) -> None: ...
    def on_task_news(self, news: wire.TaskUpdates) -> None: ...
    def on_death(self, reason: str) -> Verdict: ...
    def on_failed(self, reason: str) -> None: ...
    def on_tick(self) -> None: ...


class Supervisor:
    """One per model. `spawn` may be called before there is an event loop; then `start`, in the end `stop`."""

    def __init__(
        self,
        name: str,
        order: wire.Load,
        owner: Owner,
        *,
        argv: Sequence[str],
        log_level: str,
        stall_s: float,
    ) -> None:
        self.state = "loading"
        self.detail = "not started"
        self.progress = 0.0
        self.info: dict[str, Any] | None = None
        self.restarts = 0
        self.silent = False
        self.on_progress: Callable[[float, str], None] | None = None
        self._name, self._order, self._owner = name, order, owner
        self._argv, self._log_level, self._stall_s = argv, log_level, stall_s
        self._child: EngineChild | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()  # for the first time, or never
        self._load_failure: LoadFailed | None = None
        self._last_words = ""
        self._device_gone = False
        self._heard_at = 0.0
        self._pinged_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Of the present process."""
        return self._child.pid if self._child else None

    def spawn(self) -> None:
        """Start a process unless there is one."""
        if self._child is None:
            self._child = EngineChild.spawn(self._name, self._order, self._argv, self._log_level)

    def start(self) -> None:
        """Begin to listen to the process, and to watch it."""
        self.detail = "loading"
        try:
            self.spawn()
        except OSError as error:
            self.give_up_loading(LoadFailed("OSError", f"cannot start an engine process: {error}"))
            return
        self._tasks = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch())]

    def send(self, message: wire.ToEngine) -> None:
        """Never blocks; what is sent to a process that is gone is lost."""
        if self._child is not None:
            self._child.send(message)

    async def loaded(self) -> None:
        """Wait until the model is there for the first time; raises LoadFailed if it will not be."""
        await self._ready.wait()
        if self._load_failure is not None:
            raise self._load_failure

    def give_up_loading(self, failure: LoadFailed) -> None:
        """The first load is over, in vain."""
        if not self._ready.is_set():
            self._load_failure = failure
            if self._child is not None:
                self._child.kill()
            self._fail(str(failure))
            self._ready.set()

    async def stop(self) -> None:
        """End the process, politely if it listens."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.give_up_loading(LoadFailed("Stopped", "stopped while loading"))
        if self._child is not None:
            if self.state == "ready":
                self._child.send(wire.Shutdown())
            else:
                self._child.kill()
            await self._child.bury()
            self._child = None
        self.state = self.detail = "stopped"

    def _fail(self, reason: str) -> None:
        self.state, self.detail = "failed", reason
        self._owner.on_failed(reason)

    async def _keep_alive(self) -> None:
        try:
            while True:
                reason = await self._life()
                if not self._ready.is_set():
                    self.give_up_loading(LoadFailed("EngineDied", reason))
                if self.state == "failed":
                    return
                if self._device_gone:  # no fault of the engine's, and it may come back
                    if self.detail != reason:
                        log.error("[%s] %s; trying again every %.0f s", self._name, reason, AWAITING_DEVICE_S)
                    self.detail = reason
                    await asyncio.sleep(AWAITING_DEVICE_S)
                    self.spawn()
                    continue
                log.error("[%s] %s", self._name, reason)
                verdict = self._owner.on_death(reason)
                if verdict.hopeless:
                    self._fail(f"the engine keeps failing: {reason}")
                    return
                await asyncio.sleep(verdict.pause_s)
                self.restarts += 1
                self.spawn()
        except Exception as error:
            log.exception("[%s] cannot keep the engine process alive", self._name)
            self._fail(f"cannot keep the engine process alive: {error}")

    async def _life(self) -> str:
        """From the birth of a process to its end; how it ended."""
        assert self._child is not None
        self._last_words = ""
        self._device_gone = False
        await self._child.attach(self._on_messages)
        await self._child.lost()
        if self.state == "ready":
            self.state, self.detail, self.progress = "restarting", "the engine is restarting", 0.0
        self._pinged_at = None
        self.silent = False
        child, self._child = self._child, None
        reason = await child.bury()
        return self._last_words or reason

    async def _watch(self) -> None:
        """Ask the process now and then whether it lives; it answers between two steps."""
        n = 0
        while True:
            await asyncio.sleep(min(TICK_S, self._stall_s / 4))
            self._owner.on_tick()
            if self.state != "ready" or self._child is None:
                continue
            now = time.monotonic()
            if self._pinged_at is None:
                if now - self._heard_at >= self._stall_s / 4:
                    n += 1
                    self._child.send(wire.Ping(n))
                    self._pinged_at = now
                continue
            silence = now - self._pinged_at
            if silence >= self._stall_s and not self.silent:
                self.silent = True
                log.error("[%s] the engine has not answered for %.0f s", self._name, silence)
            if silence >= self._stall_s * KILL_AFTER_STALLS:
                self._last_words = f"the engine did not answer for {silence:.0f} s and was killed"
                self._child.kill()

    def _on_messages(self, messages: list[wire.ToServer]) -> None:
        self._heard_at = time.monotonic()
        self._pinged_at = None  # whatever it says, it lives
        self.silent = False
        for message in messages:
            if type(message) is wire.Events:
                self._owner.on_events(message)
            elif type(message) is wire.TaskUpdates:
                self._owner.on_task_news(message)
            else:
                self._on_other(message)

    def _on_other(self, message: wire.ToServer) -> None:
        match message:
            case wire.Progress(fraction, text):
                self.progress = fraction
                if self.state == "loading":
                    self.detail = text
                    if self.on_progress is not None:
                        self.on_progress(fraction, text)
            case wire.Ready(info):
                if self.state == "restarting":
                    log.warning("[%s] the engine was restarted", self._name)
                self.info = info
                self.state, self.detail, self.progress = "ready", "ready", 1.0
                self._ready.set()
                self._owner.on_ready()
            case wire.LoadFailed(kind, text):
                self._last_words = text
                self._device_gone = kind == "DeviceError" and self._ready.is_set()
                self.give_up_loading(LoadFailed(kind, text))
            case wire.Fatal(text):
                self._last_words = text
