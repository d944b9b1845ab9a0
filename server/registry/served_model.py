"""One model that can be served: its file, its engine while it has one, and the requests that use it."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from server.worker.engine import Engine
from server.worker.errors import LoadFailed

# Kinds of a LoadFailed:
NO_MEMORY = "OutOfMemoryError"
UNLOADED = "Unloaded"

SERVING = ("ready", "restarting")  # states of an engine that takes requests


class ModelState(StrEnum):
    """unloaded → loading → ready → draining → unloaded; loading or ready → failed → loading."""

    UNLOADED = "unloaded"
    LOADING = "loading"  # also while it waits for its turn, or for memory
    READY = "ready"  # also while a crashed engine process is restarted
    DRAINING = "draining"  # will be unloaded once the requests that use it have ended
    FAILED = "failed"


class Residency:
    """An engine that serves a model, and the number of requests that use it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.n_users = 0
        self.stopped = asyncio.Event()


class Lease(NamedTuple):
    """A request's use of an engine, which is unloaded before the registry's `release` only if it is blocked.

    counts: as a use of the model, after which it stays loaded for its keep-alive time.
    """

    model: ServedModel
    residency: Residency
    counts: bool


class ServedModel:
    """Created and changed by the registry and its loader.

    in_folder: it is from --models-dir and not loaded at the start. starting: its load at the start of the
    server has not ended. is_absent: its file was removed. failure: why its last load failed. failed_at,
    last_used: by the registry's clock. keep_alive_s: seconds without a request until it is unloaded, None:
    never; after an unload the default applies again. n_waiting: requests that wait for it. abandonable: its
    load has not begun, and ends when nobody waits any more. successor: an engine that is being loaded to
    replace the current one.
    """

    def __init__(
        self, name: str, path: Path, *, in_folder: bool = False, keep_alive_s: float | None = None
    ) -> None:
        self.name, self.path, self.in_folder = name, path, in_folder
        self.default_keep_alive_s = self.keep_alive_s = keep_alive_s
        self.starting = self.is_absent = self.draining = self.abandonable = False
        self.residency: Residency | None = None
        self.successor: Engine | None = None
        self.load: asyncio.Task[None] | None = None
        self.failure: LoadFailed | None = None
        self.failed_at = 0.0
        self.last_used = 0.0
        self.n_waiting = 0
        self.header: dict[str, Any] | None = None  # what its file says, once that was read

    @property
    def engine(self) -> Engine | None:
        return None if self.residency is None else self.residency.engine

    @property
    def state(self) -> ModelState:
        engine = self.engine
        if engine is None:
            if self.load is not None:
                return ModelState.LOADING
            return ModelState.UNLOADED if self.failure is None else ModelState.FAILED
        if self.draining or engine.state == "stopped":
            return ModelState.DRAINING
        if engine.state == "failed":
            return ModelState.LOADING if self.load is not None else ModelState.FAILED
        return ModelState.LOADING if engine.state == "loading" else ModelState.READY

    @property
    def progress(self) -> float:
        """Load progress, 0 to 1."""
        engine = self.successor or self.engine
        return engine.progress if engine is not None and engine.state != "failed" else 0.0

    @property
    def is_resident(self) -> bool:
        """Whether it takes memory."""
        engine = self.engine
        return engine is not None and engine.state not in ("failed", "stopped")

    @property
    def is_idle(self) -> bool:
        return self.residency is not None and not self.residency.n_users and not self.n_waiting

    def expires_at(self, now: float) -> float | None:
        """When it will be unloaded unless a request arrives; None: never, or it has no engine."""
        if self.keep_alive_s is None or not self.is_resident:
            return None
        return (self.last_used if self.is_idle else now) + self.keep_alive_s
