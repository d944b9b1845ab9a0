"""Runs tasks in steps between those of the scheduler.

Streams have priority when cells are scarce: a task waits for room, and returns its cells when streams need
them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from inspect import GEN_CREATED, getgeneratorstate
from time import monotonic

from engine.cache import session_file
from engine.cache.cached_sequence import CachedSequence
from engine.config import adapter_scales
from engine.errors import ConfigError, DeviceError, EngineError, OutOfMemoryError
from engine.gguf.report import printable
from engine.model.context import ModelContext
from engine.tasks.embedding import Embedder, Embedding
from engine.tasks.prompt_logprobs import PromptLogprobsRunner
from engine.tasks.types import (
    AnyTask,
    Embed,
    Embedded,
    Erased,
    EraseSlot,
    GetPromptLogprobs,
    PromptLogprobs,
    Restored,
    RestoreSlot,
    ResultChunk,
    Saved,
    SaveSlot,
    TaskFailure,
    TaskResult,
    TaskUpdate,
)
from engine.types import AdapterScales

STEP_S = 0.02  # of reading and writing files, before streams have their turn

SlotSteps = Generator[float, None, TaskResult]


class TaskRunner:
    """All tasks of one model: `submit`, then `step` until `has_work` is false."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._embedder = Embedder(model)
        self._logprobs = PromptLogprobsRunner(model)
        self._n_left: dict[str, int] = {}  # inputs of an Embed that have no vector yet
        self._slots: dict[str, SlotSteps] = {}  # one after the other
        self._updates: list[TaskUpdate] = []

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        return bool(self._n_left or self._logprobs.has_work or self._slots or self._updates)

    @property
    def n_rows(self) -> int:
        """Rows of the current or last batch."""
        return max(self._embedder.n_rows, self._logprobs.n_rows)

    def submit(self, id: str, task: AnyTask, /) -> None:
        """Queue a task. If it is impossible, the next step reports that."""
        try:
            match task:
                case Embed(inputs, pooling, second, lora):
                    if not inputs:
                        raise ConfigError("there is no input to embed")
                    self._embedder.submit(id, inputs, pooling, second, lora)
                    self._n_left[id] = len(inputs)
                case GetPromptLogprobs(tokens, top, lora, salt):
                    self._logprobs.submit(id, tokens, top, lora, salt)
                case SaveSlot(path, tokens, lora, salt):
                    self._slots[id] = _save(self.model, path, _sequence(self.model, tokens, lora, salt))
                case RestoreSlot(path, salt):
                    self._slots[id] = _restore(self.model, path, salt)
                case EraseSlot(tokens, lora, salt):
                    self._slots[id] = _erase(self.model, _sequence(self.model, tokens, lora, salt))
        except EngineError as error:
            self._updates.append(TaskUpdate(id, failure=failure_of(error)))

    def cancel(self, id: str, /) -> None:
        """Drop a task. No more updates of it follow."""
        self._embedder.cancel(id)
        self._logprobs.cancel(id)
        self._n_left.pop(id, None)
        if id in self._slots:
            self._slots.pop(id).close()
        self._updates = [update for update in self._updates if update.id != id]

    def yield_cells(self) -> None:
        """Called before a step of the scheduler: free the cells that streams may need in it."""
        model, n = self.model, self.model.params.parallel
        self._embedder.yield_cells(n)
        self._logprobs.yield_cells(n)
        needs_what_it_holds = model.pool.lacks(n) and not self._slot_is_new
        if self._slots and (model.prefix.n_available < n or needs_what_it_holds):
            id, steps = next(iter(self._slots.items()))  # only the first has begun
            del self._slots[id]
            steps.close()
            error = OutOfMemoryError("streams need the cells of the KV cache; try again later")
            self._updates.append(TaskUpdate(id, failure=failure_of(error)))

    def step(self, busy: bool, /) -> list[TaskUpdate]:
        """Do a part of the work. busy: streams run, and may need or free cells."""
        updates, self._updates = self._updates, []
        reserve = self.model.params.parallel if busy else 0
        if self._embedder.has_work:
            updates += self._step_embedder(reserve)
        if self._logprobs.has_work:
            updates += self._step_logprobs(reserve)
        if self._slots:
            updates.append(self._step_slot(busy))
        return updates

    @property
    def _slot_is_new(self) -> bool:
        """Whether the first slot task has not begun yet."""
        return bool(self._slots) and getgeneratorstate(next(iter(self._slots.values()))) == GEN_CREATED

    @property
    def _window(self) -> int:
        """The number of window rows that a restored sequence takes."""
        windows = self.model.pool.windows
        return 0 if windows is None else windows.reach

    def _step_logprobs(self, reserve: int) -> list[TaskUpdate]:
        step = self._logprobs.step(reserve)
        if step is None:
            return []
        id, outcome = step
        if isinstance(outcome, Exception):
            return [TaskUpdate(id, failure=failure_of(outcome))]
        rows, last = outcome
        result = PromptLogprobs(b"", rows.shape[-1]) if last else None
        return [TaskUpdate(id, [ResultChunk(0, rows.astype("<f8", copy=False).tobytes())], result)]

    def _step_embedder(self, reserve: int) -> list[TaskUpdate]:
        completed = self._embedder.step(reserve)
        if completed is None:
            return []
        updates: dict[str, TaskUpdate] = {}
        for id, outcome in completed:
            update = updates.setdefault(id, TaskUpdate(id, []))
            if isinstance(outcome, Embedding):
                data = outcome.vector.astype("<f4", copy=False).tobytes()
                update.chunks.append(ResultChunk(outcome.input, data))
                self._n_left[id] -= 1
                if not self._n_left[id]:
                    update.result = Embedded([], outcome.vector.shape[-1])
                    del self._n_left[id]
            else:
                update.failure = failure_of(outcome)
                del self._n_left[id]
        # A long input may take many steps: an empty update shows that the task is alive.
        return list(updates.values()) or [TaskUpdate(next(iter(self._n_left)))]

    def _step_slot(self, busy: bool) -> TaskUpdate:
        id, steps = next(iter(self._slots.items()))
        if busy and self._slot_is_new and self.model.pool.lacks(self._window):
            return TaskUpdate(id)  # a stream that ends gives its recurrent state's slot and its rows back
        end = monotonic() + STEP_S
        try:
            next(steps)
            while monotonic() < end:
                next(steps)
        except StopIteration as last:
            del self._slots[id]
            return TaskUpdate(id, result=last.value)
        except EngineError as error:
            del self._slots[id]
            return TaskUpdate(id, failure=failure_of(error))
        return TaskUpdate(id)


def failure_of(error: Exception) -> TaskFailure:
    """An error as it is reported. An error after which nothing can run is raised instead."""
    if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
        raise error
    return TaskFailure(type(error).__name__, str(error) or type(error).__name__)


def _without_path(error: EngineError, path: str) -> EngineError:
    """The same error without paths, which clients must not see."""
    return type(error)(str(error).replace(printable(path), "the file"))


def _sequence(model: ModelContext, tokens: list[int], lora: AdapterScales, salt: str) -> CachedSequence:
    return CachedSequence(
        model.pool,
        model.prefix,
        tokens,
        original_context_length=model.hp.original_context_length,
        adapters=adapter_scales(lora, len(model.adapters)),
        salt=salt,
    )


def _save(model: ModelContext, path: str, sequence: CachedSequence) -> SlotSteps:
    started = monotonic()
    try:
        n_cached = sequence.attach()
        if not n_cached:
            raise ConfigError("the cache no longer holds any of it; there is nothing to save")
        n_bytes = yield from session_file.saving(path, model, sequence)
    except EngineError as error:
        raise _without_path(error, path) from error
    finally:
        sequence.release()
    return Saved(n_cached, n_bytes, (monotonic() - started) * 1e3)


def _restore(model: ModelContext, path: str, salt: str) -> SlotSteps:
    started = monotonic()
    sequence = _sequence(model, [], (), salt)
    try:
        yield from session_file.restoring(path, model, sequence)
        tokens, n_cached = sequence.tokens.tolist(), sequence.n_past
        n_bytes = os.path.getsize(path)
    except EngineError as error:
        raise _without_path(error, path) from error
    finally:
        sequence.release()
    return Restored(tokens, n_cached, n_bytes, (monotonic() - started) * 1e3, sequence.adapters)


def _erase(model: ModelContext, sequence: CachedSequence) -> SlotSteps:
    before = model.prefix.n_cells
    match = model.prefix.acquire(sequence.tokens, None, sequence.next_variant, resumable=False)
    if match.node is not None:
        model.prefix.forget(match.node)
    yield 1.0
    return Erased(before - model.prefix.n_cells)
