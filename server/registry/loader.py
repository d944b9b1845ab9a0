"""Loads and unloads models, one at a time, unloading others to make room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from server.registry.memory import memory_use
from server.registry.served_model import NO_MEMORY, Residency, ServedModel
from server.worker.engine import Engine
from server.worker.errors import LoadFailed


class Changes:
    """Each `notify` wakes every task that is waiting at that moment.

    n_waiting: the number of waiting tasks.
    """

    def __init__(self) -> None:
        self.n_waiting = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the next change, or until the time is up."""
        self.n_waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._next.wait(), timeout_s)
        finally:
            self.n_waiting -= 1


log = logging.getLogger("ggserve")

# The engine of a model, which may take so many bytes (None: what is free). It is started by the loader.
EngineFactory = Callable[[ServedModel, int | None], Engine]
BLOCKED_CHECK_S = 1.0
PATIENCE_S = 10.0  # for a model to be without requests, before one that is never gets no new ones


@dataclass(frozen=True)
class Capacity:
    """max_models: loaded at the same time; 0: any number.

    memory: bytes of all models; None: the free memory.
    """

    max_models: int = 0
    memory: int | None = None


class Loader:
    """models, engines: the registry's; an engine is in `engines` from before its start until it has stopped.

    check_file: raises ModelError for a file that is not a model. on_loaded, on_removed: called with engines.
    """

    def __init__(
        self,
        models: MutableMapping[str, ServedModel],
        new_engine: EngineFactory,
        capacity: Capacity,
        *,
        check_file: Callable[[Path], None],
        clock: Callable[[], float],
    ) -> None:
        self.engines: dict[str, Engine] = {}
        self.changes = Changes()
        self.on_loaded: Callable[[Engine], None] = lambda engine: None
        self.on_removed: Callable[[Engine], None] = lambda engine: None
        self._check_file = check_file
        self._models, self._new_engine, self._capacity, self._clock = models, new_engine, capacity, clock
        self._turn = asyncio.Lock()  # the memory that is free for one is known when the one before has loaded
        self._retiring: list[Residency] = []  # whose model has another engine by now
        self._stopping: set[asyncio.Task[None]] = set()

    def prepare(self, model: ServedModel) -> None:
        """Create the engine that the next load of the model starts."""
        self._put(model, self._new_engine(model, self._memory_left(model)))

    def all_engines(self) -> Iterator[Engine]:
        """All engines, including those that are only finishing requests."""
        yield from self.engines.values()
        yield from (model.successor for model in self._models.values() if model.successor is not None)
        yield from (residency.engine for residency in self._retiring)

    # --- load

    def begin(self, model: ServedModel) -> asyncio.Task[None]:
        """Begin to load a model, or to replace it. The load continues if the caller is cancelled."""
        if model.load is None or model.load.cancelling():  # one that is ended is nobody else's any more
            model.load = self._task(self._load(model))
            model.abandonable = True
            self.changes.notify()
        return model.load

    def replace(self, model: ServedModel) -> asyncio.Task[None]:
        """Load the model's file again, while the current engine finishes its requests."""
        if model.load is None and model.is_resident and not model.draining:
            model.load = self._task(self._replace(model))
            self.changes.notify()
        return self.begin(model)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # the waiters raise it
        return task

    async def _load(self, model: ServedModel) -> None:
        try:
            async with self._turn:
                if not model.starting:
                    while model.draining:  # by someone who may give up
                        await self.changes.wait()
                    if model.is_resident:
                        return
                    await self.unload(model)  # its engine has failed
                if self._is_full(model):
                    await self._check(model)
                while self._is_full(model) and await self._evict(model):
                    pass
                await self._start(model)
        finally:
            if model.load is asyncio.current_task():
                model.load, model.abandonable = None, False
            self.changes.notify()

    async def _check(self, model: ServedModel) -> None:
        """Check the file first, so that no model is unloaded for an invalid one. Raises LoadFailed."""
        try:
            await asyncio.to_thread(self._check_file, model.path)
        except ModelError as error:
            failure = LoadFailed(type(error).__name__, str(error))
            await self._failed(model, None, failure)
            raise failure from None

    async def _start(self, model: ServedModel) -> None:
        while True:
            if model.residency is None:
                self._put(model, self._new_engine(model, self._memory_left(model)))
            residency = model.residency
            assert residency is not None
            model.abandonable, model.failure = False, None
            self.changes.notify()
            try:
                await residency.engine.start()
            except LoadFailed as failure:
                if failure.kind != NO_MEMORY or model.starting or not self._others(model):
                    await self._failed(model, residency, failure)
                    raise
                await self._stop(model, residency)
                model.abandonable = True
                await self._evict(model)
            except asyncio.CancelledError:
                await self._stop(model, residency)
                raise
            else:
                model.last_used = self._clock()
                self.on_loaded(residency.engine)
                return

    async def _failed(self, model: ServedModel, residency: Residency | None, failure: LoadFailed) -> None:
        log.error("model '%s' cannot be loaded: %s", model.name, failure)
        model.failure, model.failed_at = failure, self._clock()
        if residency is not None and model.in_folder:  # others keep their state to be seen
            await self._stop(model, residency)

    async def _replace(self, model: ServedModel) -> None:
        try:
            async with self._turn:
                old = model.residency
                if old is None or model.draining:
                    return
                if await self._start_successor(model):
                    self._retiring.append(old)
                    self.keep(self._retire(old))
                else:
                    await self.unload(model)
                    await self._start(model)
        finally:
            if model.load is asyncio.current_task():
                model.load = None
            self.changes.notify()

    async def _start_successor(self, model: ServedModel) -> bool:
        """Start another engine for the model. False: there is no room for both."""
        engine = model.successor = self._new_engine(model, self._memory_left(None))
        try:
            await engine.start()
        except LoadFailed as failure:
            await engine.stop()
            if failure.kind == NO_MEMORY:
                return False
            log.error("model '%s' cannot be reloaded: %s", model.name, failure)
            raise
        except asyncio.CancelledError:
            await engine.stop()
            raise
        finally:
            model.successor = None
        self._put(model, engine)
        self.on_loaded(engine)
        return True

    async def _unused(self, residency: Residency) -> None:
        """Wait until no request uses the engine, or until none can end because a device or memory is gone."""
        while residency.n_users and not residency.engine.blocked:
            await self.changes.wait(BLOCKED_CHECK_S)

    async def _retire(self, residency: Residency) -> None:
        await self._unused(residency)
        await residency.engine.stop()
        self._retiring.remove(residency)
        self.on_removed(residency.engine)
        residency.stopped.set()

    def _put(self, model: ServedModel, engine: Engine) -> None:
        model.residency = Residency(engine)
        self.engines[model.name] = engine

    # --- unload

    async def unload(self, model: ServedModel) -> None:
        """Stop the engine once no request uses it. Further requests wait for the next load."""
        residency = model.residency
        while residency is not None and not residency.stopped.is_set():
            if model.draining:  # by someone else, who may give up
                await self.changes.wait()
                continue
            model.draining = True
            self.changes.notify()
            try:
                await self._unused(residency)
            except asyncio.CancelledError:
                model.draining = False
                self.changes.notify()
                raise
            await asyncio.shield(self.keep(self._stop(model, residency)))

    async def _stop(self, model: ServedModel, residency: Residency) -> None:
        await residency.engine.stop()
        if model.residency is residency:
            model.residency, model.draining, model.header = None, False, None
            model.keep_alive_s = model.default_keep_alive_s
            self.engines.pop(model.name, None)
        self.on_removed(residency.engine)
        residency.stopped.set()
        self.changes.notify()

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background, at most until the server stops."""
        task = asyncio.create_task(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    async def stop(self) -> None:
        """Stop everything at once."""
        loads = [model.load for model in self._models.values() if model.load is not None]
        for task in (*loads, *self._stopping):
            task.cancel()
        await asyncio.gather(*loads, *self._stopping, return_exceptions=True)
        await asyncio.gather(*(engine.stop() for engine in self.all_engines()), return_exceptions=True)

    # --- room

    def _others(self, model: ServedModel | None) -> list[ServedModel]:
        return [other for other in self._models.values() if other is not model and other.is_resident]

    def _is_full(self, model: ServedModel) -> bool:
        return 0 < self._capacity.max_models <= len(self._others(model))

    def _memory_left(self, model: ServedModel | None) -> int | None:
        if self._capacity.memory is None:
            return None
        engines = [other.engine for other in self._others(model)] + [r.engine for r in self._retiring]
        used = sum(memory_use(engine.info)[0] for engine in engines if engine is not None and engine.info)
        return max(self._capacity.memory - used, 0)

    async def _evict(self, model: ServedModel) -> bool:
        """Unload the least recently used of the other models. False: there is none.

        If all are in use, wait for one that is not. After PATIENCE_S the least recently used one gets no new
        requests, so that a model that is never idle does not keep others out forever.
        """
        began = self._clock()
        while others := self._others(model):
            ready = [other for other in others if not other.draining]
            idle = [other for other in ready if other.is_idle]
            left_s = began + PATIENCE_S - self._clock()
            if leaving := next((other for other in others if other.draining), None):
                await self.unload(leaving)
            elif not (idle or left_s <= 0):
                await self.changes.wait(left_s)
                continue
            else:
                victim = min(idle or ready, key=lambda other: other.last_used)
                log.info("model '%s' is unloaded to make room for '%s'", victim.name, model.name)
                await self.unload(victim)
            return True
        return False
