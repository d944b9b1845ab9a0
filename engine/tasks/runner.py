"""Work besides streams, done in steps between those of the scheduler.

Streams come first where cells are short: work waits for room, and gives back what it has when they need it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from time import monotonic

from engine.cache import session_file
from engine.cache.cached_sequence import CachedSequence
from engine.errors import ConfigError, DeviceError, EngineError, OutOfMemoryError
from engine.gguf.report import printable
from engine.model.context import ModelContext
from engine.tasks.embedding import Embedder, Embedding
from engine.tasks.prompt_logprobs import Scorer
from engine.tasks.types import (
    AnyTask,
    Embed,
    Embedded,
    Erased,
    EraseSlot,
    Restored,
    RestoreSlot,
    ResultChunk,
    Saved,
    SaveSlot,
    Score,
    Scored,
    TaskFailure,
    TaskResult,
    TaskUpdate,
)

STEP_S = 0.02  # of reading and writing files, before streams have their turn

Steps = Generator[float, None, TaskResult]


class TaskRunner:
    """All work of one model: `submit`, then `step` until `has_work` is false."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._embedder = Embedder(model)
        self._scorer = Scorer(model)
        self._left: dict[str, int] = {}  # inputs of an Embed whose vectors are still to come
        self._slots: dict[str, Steps] = {}  # one after the other
        self._news: list[TaskUpdate] = []

    @property
    def has_work(self) -> bool:
        return bool(self._left or self._scorer.has_work or self._slots or self._news)

    def submit(self, id: str, work: AnyTask) -> None:
        """Take an order. What cannot be done is told by the next step."""
        try:
            match work:
                case Embed(inputs, pooling, second):
                    if not inputs:
                        raise ConfigError("there is no input to embed")
                    self._embedder.submit(id, inputs, pooling, second)
                    self._left[id] = len(inputs)
                case Score(tokens, top):
                    self._scorer.submit(id, tokens, top)
                case SaveSlot(path, tokens):
                    self._slots[id] = _save(self.model, path, tokens)
                case RestoreSlot(path):
                    self._slots[id] = _restore(self.model, path)
                case EraseSlot(tokens):
                    self._slots[id] = _erase(self.model, tokens)
        except EngineError as error:
            self._news.append(TaskUpdate(id, failure=failure_of(error)))

    def cancel(self, id: str) -> None:
        """Drop an order. Nothing more is told of it."""
        self._embedder.cancel(id)
        self._scorer.cancel(id)
        self._left.pop(id, None)
        if id in self._slots:
            self._slots.pop(id).close()
        self._news = [news for news in self._news if news.id != id]

    def yield_cells(self) -> None:
        """Before a step of the scheduler: see that no stream ends for want of a cell."""
        model, n = self.model, self.model.params.parallel
        for worker in (self._embedder, self._scorer):
            worker.yield_cells(n)
        if self._slots and model.prefix.n_available < n:
            id, steps = next(iter(self._slots.items()))  # only the first has begun
            del self._slots[id]
            steps.close()
            error = OutOfMemoryError("streams need the cells of the KV cache; try again later")
            self._news.append(TaskUpdate(id, failure=failure_of(error)))

    def step(self, busy: bool) -> list[TaskUpdate]:
        """Do a part of what there is. busy: streams run, and may need cells or give some back."""
        news, self._news = self._news, []
        reserve = self.model.params.parallel if busy else 0
        if self._embedder.has_work:
            news += self._embed(reserve)
        if self._scorer.has_work:
            news += self._score(reserve)
        if self._slots:
            news.append(self._slot())
        return news

    def _score(self, reserve: int) -> list[TaskUpdate]:
        done = self._scorer.step(reserve)
        if done is None:
            return []
        id, found = done
        if isinstance(found, Exception):
            return [TaskUpdate(id, failure=failure_of(found))]
        rows, last = found
        result = Scored(b"", rows.shape[-1]) if last else None
        return [TaskUpdate(id, [ResultChunk(0, rows.astype("<f8", copy=False).tobytes())], result)]

    def _embed(self, reserve: int) -> list[TaskUpdate]:
        done = self._embedder.step(reserve)
        if done is None:
            return []
        news: dict[str, TaskUpdate] = {}
        for id, found in done:
            told = news.setdefault(id, TaskUpdate(id, []))
            if isinstance(found, Embedding):
                told.pieces.append(ResultChunk(found.input, found.vector.astype("<f4", copy=False).tobytes()))
                self._left[id] -= 1
                if not self._left[id]:
                    told.result = Embedded([], found.vector.shape[-1])
                    del self._left[id]
            else:
                told.failure = failure_of(found)
                del self._left[id]
        # A long input may take many steps: each is a sign of life.
        return list(news.values()) or [TaskUpdate(next(iter(self._left)))]

    def _slot(self) -> TaskUpdate:
        id, steps = next(iter(self._slots.items()))
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
    """An error as it is told. One that ends everything is raised."""
    if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
        raise error
    return TaskFailure(type(error).__name__, str(error) or type(error).__name__)


def _nameless(error: EngineError, path: str) -> EngineError:
    """Without the path, which is not for clients."""
    return type(error)(str(error).replace(printable(path), "the file"))


def _save(model: ModelContext, path: str, tokens: list[int]) -> Steps:
    started = monotonic()
    sequence = CachedSequence(model.pool, model.prefix, tokens, n_short=model.hp.n_short)
    try:
        n_cached = sequence.attach()
        if not n_cached:
            raise ConfigError("nothing of it is in the cache any more; there is nothing to save")
        n_bytes = yield from session_file.saving(path, model, sequence)
    except EngineError as error:
        raise _nameless(error, path) from error
    finally:
        sequence.release()
    return Saved(n_cached, n_bytes, (monotonic() - started) * 1e3)


def _restore(model: ModelContext, path: str) -> Steps:
    started = monotonic()
    sequence = CachedSequence(model.pool, model.prefix, n_short=model.hp.n_short)
    try:
        yield from session_file.restoring(path, model, sequence)
        tokens, n_cached = sequence.tokens.tolist(), sequence.n_past
        n_bytes = os.path.getsize(path)
    except EngineError as error:
        raise _nameless(error, path) from error
    finally:
        sequence.release()
    return Restored(tokens, n_cached, n_bytes, (monotonic() - started) * 1e3)


def _erase(model: ModelContext, tokens: list[int]) -> Steps:
    sequence = CachedSequence(model.pool, model.prefix, tokens, n_short=model.hp.n_short)
    before = model.prefix.n_cells
    match = model.prefix.acquire(sequence.tokens, None, sequence.wants_long)
    if match.node is not None:
        model.prefix.forget(match.node)
    yield 1.0
    return Erased(before - model.prefix.n_cells)
