"""The models that can be served: found by name, used by requests, loaded and unloaded.

Everything runs in the event loop, and nothing blocks it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.gguf import GGUFFile
from server.registry.folder import models_in
from server.registry.header import read_header
from server.registry.loader import Capacity, EngineFactory, Loader
from server.registry.served_model import SERVING, UNLOADED, Lease, ModelState, ServedModel
from server.worker.engine import Engine
from server.worker.errors import LoadFailed, QueueFull

log = logging.getLogger("ggserve")

TICK_S = 1.0
SCAN_S = 2.0  # between two looks into the folder
TRIES = 3  # of a request, where a model is unloaded or fails before it can use it
RETRY_S = 10.0  # after a load that failed, before a request may try again


@dataclass(frozen=True)
class Policy:
    """autoload: a request for a model that is not loaded loads it. idle_s: seconds without a request after
    which a model is unloaded; None: never. max_waiting: requests that may wait for one model. folder:
    --models-dir.
    """

    autoload: bool = True
    idle_s: float | None = None
    max_waiting: int = 64
    folder: Path | None = None


def check_file(path: Path) -> None:
    """Raises ModelError if the file is not a model or does not exist."""
    with GGUFFile.open(path):
        pass


class ModelRegistry:
    """`start` once, `stop` once. paths: name → file of the models to load at the start, in order.

    models: all that can be served, by name, those of `paths` first. engines: those that exist, by model.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        new_engine: EngineFactory,
        policy: Policy = Policy(),
        capacity: Capacity = Capacity(),  # noqa: B008
        *,
        check_file: Callable[[Path], None] = check_file,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        idle_s = policy.idle_s
        self.models = {name: ServedModel(name, path, keep_alive_s=idle_s) for name, path in paths.items()}
        self.policy, self.capacity = policy, capacity
        self._loader = Loader(self.models, new_engine, capacity, check_file=check_file, clock=clock)
        self.engines, self.changes = self._loader.engines, self._loader.changes
        self.all_engines = self._loader.all_engines
        self._clock = clock
        self._jobs: list[asyncio.Task[None]] = []
        self._scanned = -SCAN_S
        self._scan_lock = asyncio.Lock()
        self._started = asyncio.Event()
        self._first = list(self.models.values())[: capacity.max_models or None]
        for i, model in enumerate(self._first):
            model.starting = True
            if not i or capacity.memory is None:  # else what the others take is not known yet
                self._loader.prepare(model)

    @classmethod
    def of(cls, engines: Mapping[str, Engine]) -> ModelRegistry:
        """A registry of existing engines."""
        return cls({name: Path(name) for name in engines}, lambda model, memory: engines[model.name])

    @property
    def is_router(self) -> bool:
        """Whether clients have a choice of models, or one model that is loaded on request."""
        return len(self.models) > 1 or any(model.in_folder for model in self.models.values())

    def on_loaded(self, listener: Callable[[Engine], None]) -> None:
        """Call `listener` with each engine that has loaded its model."""
        self._loader.on_loaded = listener

    def on_removed(self, listener: Callable[[Engine], None]) -> None:
        """Call `listener` with each engine that has stopped."""
        self._loader.on_removed = listener

    def reload(self, policy: Policy) -> None:
        """Set another policy.

        Models with a keep-alive time from a request keep that until they are unloaded.
        """
        for model in self.models.values():
            if model.keep_alive_s == model.default_keep_alive_s:
                model.keep_alive_s = policy.idle_s
            model.default_keep_alive_s = policy.idle_s
        self.policy = policy

    # --- start and stop

    async def start(self) -> None:
        """Load the first models, one after the other. Returns when all loads have ended."""
        loads = [self._loader.begin(model) for model in self._first]
        for model in self._first:
            model.abandonable = False
        if self.policy.folder is not None:
            await self.refresh()
        self._jobs = [asyncio.create_task(self._watch())]
        try:
            await asyncio.gather(*loads, return_exceptions=True)
        finally:
            for model in self._first:
                model.starting = False
            self._started.set()
            self.changes.notify()

    async def wait_started(self) -> list[LoadFailed]:
        """Wait until the first models have been loaded. Returns why some were not."""
        await self._started.wait()
        return [model.failure for model in self._first if model.failure is not None]

    async def stop(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._loader.stop()

    def kill(self) -> None:
        """End the engine processes at once; `stop` must follow."""
        for engine in self.all_engines():
            engine.kill()

    # --- requests

    def acquire(self, model: ServedModel, *, counts: bool = True) -> Lease | None:
        """A lease on the model's engine; None: it accepts no requests now. counts: see `Lease`."""
        residency = model.residency
        if model.draining or residency is None or residency.engine.state not in SERVING:
            return None
        residency.n_users += 1
        return Lease(model, residency, counts)

    @staticmethod
    def again(lease: Lease) -> Lease:
        """Another lease on the same engine, for work that outlives the request."""
        lease.residency.n_users += 1
        return lease

    def release(self, lease: Lease) -> None:
        """Called once for each lease."""
        lease.residency.n_users -= 1
        if lease.counts:
            lease.model.last_used = self._clock()
        if self.changes.n_waiting and not lease.residency.n_users:
            self.changes.notify()

    def may_load(self, model: ServedModel) -> bool:
        """Whether a request may wait for the model to be loaded."""
        if model.starting or model.is_absent:
            return False
        engine = model.engine
        if model.load is not None or (engine is not None and engine.replaced):
            return True
        if engine is not None and engine.state in ("loading", "stopped") and not model.draining:
            return False  # not by us: the server starts or stops
        if not self.policy.autoload:
            return False
        if model.state is ModelState.FAILED:
            return model.in_folder and self._clock() - model.failed_at >= RETRY_S
        return True

    async def wait(self, model: ServedModel, n_places: int = 1) -> Lease:
        """Load the model unless it is loaded, and return a lease on its engine.

        Raises QueueFull unless that many places are free, or LoadFailed. All waiting requests share one load.
        Cancelling one does not affect the others; cancelling the last one ends the load if it has not begun.
        """
        if model.n_waiting + n_places > self.policy.max_waiting:
            raise QueueFull(model.n_waiting, RETRY_S)
        model.n_waiting += 1
        try:
            for _ in range(TRIES):
                if (lease := self.acquire(model)) is not None:
                    return lease
                await self.finished(self._loader.begin(model))
            raise LoadFailed("EngineDied", "the model does not stay loaded")
        finally:
            model.n_waiting -= 1
            if not model.n_waiting and model.abandonable and model.load is not None:
                model.load.cancel()
            self.changes.notify()

    async def load(self, model: ServedModel, *, again: bool = False) -> None:
        """Load the model whether or not requests wait. Raises LoadFailed.

        again: even if it is loaded, from its file as it is now.
        """
        if again or model.load is not None or not model.is_resident or model.draining:
            await self.finished(self.begin(model, again=again))

    def begin(self, model: ServedModel, *, again: bool = False) -> asyncio.Task[None]:
        """Like `load`, without waiting for the end."""
        task = self._loader.replace(model) if again else self._loader.begin(model)
        model.abandonable = False
        return task

    async def finished(self, load: asyncio.Task[None]) -> None:
        """Wait for the end of a load, without ending it if cancelled. Raises LoadFailed."""
        await asyncio.wait([load])
        if load.cancelled():
            raise LoadFailed(UNLOADED, "the model was unloaded while it was loading")
        await load

    async def unload(self, model: ServedModel) -> None:
        """Unload the model. Returns when its engine has stopped, which is after its last request."""
        if model.load is not None and not model.starting:
            model.load.cancel()
            await asyncio.wait([model.load])
        model.failure = None
        await self._loader.unload(model)

    async def header(self, model: ServedModel) -> Mapping[str, Any]:
        """What the file of a model that is not loaded, or is unloading, says (`read_header`); else {}."""
        if model.engine is not None and not model.draining:
            return {}
        if model.header is None:
            model.header = await asyncio.to_thread(read_header, model.path)
        return model.header

    def seconds_left(self, model: ServedModel) -> float | None:
        """Seconds until it is unloaded if no request arrives; None: it stays loaded."""
        now = self._clock()
        expires_at = model.expires_at(now)
        return None if expires_at is None else max(expires_at - now, 0.0)

    def begin_unload(self, model: ServedModel) -> None:
        """Like `unload`, without waiting for the end."""
        self._loader.keep(self.unload(model))

    # --- the folder, and models that are not used

    async def refresh(self) -> bool:
        """Look into the folder again, at most every SCAN_S. Returns whether the models have changed."""
        folder = self.policy.folder
        async with self._scan_lock:
            if folder is None or self._clock() - self._scanned < SCAN_S:
                return False
            try:
                paths = await asyncio.to_thread(models_in, folder)
            except OSError as error:
                log.error("--models-dir %s: %s", folder, error.strerror or error)
                paths = None
            self._scanned = self._clock()
            return paths is not None and self._take(paths)

    def _take(self, paths: Mapping[str, Path]) -> bool:
        """Add new models, and remove those whose file is gone once they are not loaded."""
        before = list(self.models)
        for model in list(self.models.values()):
            if model.in_folder:
                model.is_absent = paths.get(model.name) != model.path
                self._remove_absent(model)
        for name, path in paths.items():
            if name not in self.models:
                self.models[name] = ServedModel(name, path, in_folder=True, keep_alive_s=self.policy.idle_s)
        return before != list(self.models)

    def _remove_absent(self, model: ServedModel) -> None:
        if model.is_absent and model.residency is None and model.load is None:
            del self.models[model.name]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.refresh()
                self.tick()
            except Exception:
                log.exception("checking the models failed")

    def tick(self) -> None:
        """Unload models that have been idle too long or whose file is gone; load those whose file was
        replaced.
        """
        now = self._clock()
        for model in list(self.models.values()):
            self._remove_absent(model)
            engine, expires_at = model.engine, model.expires_at(now)
            if engine is not None and engine.state == "failed" and engine.replaced:
                self.begin(model)
            elif model.is_idle and model.is_resident and not model.draining and model.load is None:
                if model.is_absent:
                    reason = "its file is gone"
                elif expires_at is not None and now >= expires_at:
                    reason = "it has not been used for a while"
                else:
                    continue
                log.info("model '%s' is unloaded: %s", model.name, reason)
                self.begin_unload(model)
