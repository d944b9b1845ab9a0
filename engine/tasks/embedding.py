"""Embeddings: the hidden states of a text, pooled to one vector.

pooling: `mean` of all tokens, `cls` the first, `last` the last, `none` all of them; `rank`: scores that the
classification head computes from one token's state. Texts share batches. A bidirectional model gets each text
whole, a causal one in chunks; both use cells of the KV cache while they run.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cache.state_slots import NO_SLOT
from engine.cache.window_rows import HeldRows
from engine.config import adapter_scales, default_adapters
from engine.errors import ConfigError, ContextOverflowError, DeviceError, EngineError, OutOfMemoryError
from engine.hparams import POOLING, HParams
from engine.model.context import ModelContext
from engine.scheduler.batch import BatchItem
from engine.types import AdapterScales


class Embedding(NamedTuple):
    """The vector of input number `input`.

    float32 [n_embd]; with pooling `none` [tokens, n_embd], with `rank` [n_scores].
    """

    input: int
    vector: NDArray[np.float32]


class EmbedOutcome(NamedTuple):
    """A result of a step for a task: an embedding, or the error that ended the task."""

    id: str
    result: Embedding | Exception


@dataclass(eq=False, kw_only=True)
class _Input:
    """One text of the task `id`, and how much of it is computed."""

    id: str
    index: int
    tokens: Sequence[int]
    second: int
    pooling: str
    adapters: AdapterScales
    hp: HParams

    def __post_init__(self) -> None:
        hp = self.hp
        self.ranks = self.pooling == "rank"
        # The one token whose state is pooled: a causal model has seen all of the text at the last one only.
        self.pools_last = self.pooling == "last" or (self.ranks and hp.causal)
        self.pools_first = self.pooling == "cls" or (self.ranks and not hp.causal)
        self.uses_long_rope = 0 < hp.original_context_length < len(self.tokens)
        self.reset()

    def reset(self) -> None:
        """Mark everything as not computed; no cells are held."""
        self.cells = array("i")
        self.rows = HeldRows(None)
        self.slot = NO_SLOT
        self.n_past = 0
        self.n_next = 0
        self.states: list[NDArray[np.floating]] = []

    def batch_item(self, n: int) -> BatchItem:
        """The next `n` tokens."""
        self.n_next = n
        end = self.n_past + n
        n_states = n
        if self.pools_last:
            n_states = int(end == len(self.tokens))
        elif self.pools_first:
            n_states = 0 if self.n_past else -1
        tokens, cells = list(self.tokens[self.n_past : end]), self.cells[:end]
        self.rows.extend(cells)
        return BatchItem(
            tokens, cells, self.n_past, n_states, self.uses_long_rope, self.second, self.adapters, self.slot
        )

    def add_states(self, states: NDArray[np.float32]) -> None:
        """Store what the pooling needs from the states [rows, n_embd] of the last batch item."""
        self.n_past += self.n_next
        self.rows.advance(self.cells, self.n_past)
        if not len(states):
            return
        if self.pooling == "mean":  # a sum of many terms: float32 would lose some of them
            self.states.append(states.sum(0, dtype=np.float64, keepdims=True))
        else:
            self.states.append(states.copy())

    def pooled(self) -> NDArray[np.float32]:
        """The vector. Raises EngineError if it is not finite."""
        states: NDArray[np.floating] = np.concatenate(self.states)
        if self.pooling == "mean":
            states = states.sum(0, keepdims=True) / len(self.tokens)
        if not np.isfinite(states).all():
            raise EngineError("the embedding has values that are not finite numbers; the model is damaged")
        vectors = states.astype(np.float32)
        return vectors if self.pooling == "none" else vectors[0]


class Embedder:
    """Embeds the inputs of many tasks, which take turns and share batches: `submit`, then `step`."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._waiting: dict[str, deque[_Input]] = {}  # by task; the first is the next to run
        self._running: list[_Input] = []
        self.n_rows = 0  # of the batch that is computed, or was last

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(
        self,
        id: str,
        inputs: Sequence[Sequence[int]],
        pooling: str = "auto",
        second: Sequence[int] = (),
        lora: AdapterScales = (),
    ) -> None:
        """Queue the inputs of a task. Raises what `embed` raises; nothing is queued then."""
        model = self.model
        if pooling == "auto":
            pooling = model.hp.pooling
        if pooling not in POOLING:
            raise ConfigError(f"pooling is {pooling!r}; it must be auto, {', '.join(POOLING)}")
        if pooling == "rank" and not model.hp.n_scores:
            raise ConfigError("the model has no classification head, so it cannot rank")
        for tokens in inputs:
            if not tokens:
                raise ConfigError("an input is empty; an embedding needs at least one token")
            if len(tokens) > model.n_ctx:
                raise ContextOverflowError(len(tokens), model.n_ctx)
            if not 0 <= min(tokens) <= max(tokens) < model.n_vocab:
                raise ConfigError(f"a token id is outside of the vocabulary of {model.n_vocab} tokens")
        adapters = adapter_scales(lora, len(model.adapters))
        if inputs:
            self._waiting[id] = deque(
                _Input(
                    id=id,
                    index=i,
                    tokens=tokens,
                    second=position,
                    pooling=pooling,
                    adapters=adapters,
                    hp=model.hp,
                )
                for i, (tokens, position) in enumerate(zip(inputs, second or [0] * len(inputs), strict=True))
            )

    def cancel(self, id: str) -> None:
        """Drop the rest of a task."""
        self._waiting.pop(id, None)
        for item in [item for item in self._running if item.id == id]:
            self._stop(item)

    def step(self, reserve: int = 0) -> list[EmbedOutcome] | None:
        """Compute one batch; return what it completed. None: there is no room for one now.

        reserve: cells to leave to streams, which will free more when they end; with 0 nobody will, and a task
        that does not fit ends with OutOfMemoryError.
        """
        try:
            batch = self._build_batch(reserve)
        except OutOfMemoryError as error:
            return self._fail({self._running[0].id if self._running else next(iter(self._waiting))}, error)
        if not batch:
            return None
        self.n_rows = sum(len(item.tokens) for item in batch)
        try:
            self.model.runner.forward(batch, hidden=True, scores=self._running[0].ranks)
        except OutOfMemoryError as error:  # the others may fit without the largest
            largest = max(range(len(batch)), key=lambda i: len(batch[i].tokens))
            return self._fail({self._running[largest].id}, error)
        except DeviceError:
            raise  # nothing can run after it
        except Exception as error:
            return self._fail({item.id for item in self._running}, error)
        return self._collect(batch)

    def yield_cells(self, n: int) -> None:
        """Make `n` cells available to streams. Inputs that lose their cells are recomputed later."""
        while self._running and (self.model.prefix.n_available < n or self.model.pool.lacks(n)):
            item = self._running[-1]
            self._stop(item)
            self._waiting.setdefault(item.id, deque()).appendleft(item)

    def _build_batch(self, reserve: int) -> list[BatchItem]:
        """Tokens of the unfinished input, if there is one, and of as many more inputs as fit."""
        model, waiting = self.model, self._waiting
        budget, batch = model.max_batch_tokens, []
        windows = model.pool.windows
        if windows is not None:
            if not reserve:
                windows.make_room(1)
            budget = min(budget, windows.n_available - reserve)
            if budget < 1:
                return []
        for item in self._running:
            n = min(len(item.tokens) - item.n_past, budget)
            batch.append(item.batch_item(n))
            budget -= n
        while waiting and budget:
            id = next(iter(waiting))
            item = waiting[id][0]
            n = len(item.tokens)
            if n > budget and (batch or not model.hp.causal):
                break
            if batch and item.ranks != self._running[0].ranks:  # a graph has outputs of one kind
                break
            if (batch or reserve) and (model.prefix.n_available < n + reserve or model.pool.lacks_slots):
                break
            model.prefix.make_room(n)
            if model.pool.states is not None:
                item.slot = model.pool.states.take()
            item.cells = model.pool.alloc(n)
            item.rows = HeldRows(windows)
            self._running.append(item)
            rest = waiting.pop(id)
            rest.popleft()
            if rest:
                waiting[id] = rest  # behind the other tasks
            batch.append(item.batch_item(min(n, budget)))
            budget -= min(n, budget)
        return batch

    def _collect(self, batch: list[BatchItem]) -> list[EmbedOutcome]:
        """The results of the batch."""
        model, row = self.model, 0
        completed: list[EmbedOutcome] = []
        failed: dict[str, Exception] = {}
        for item, batch_item in zip(list(self._running), batch, strict=True):
            n = abs(batch_item.logits)
            states = [np.asarray(model.runner.hidden(row + i)) for i in range(n)]
            row += n
            item.add_states(np.stack(states) if states else np.empty((0, model.hp.n_embd), np.float32))
            if item.n_past < len(item.tokens):
                continue
            try:
                completed.append(EmbedOutcome(item.id, Embedding(item.index, item.pooled())))
            except EngineError as error:
                failed[item.id] = error
            else:
                self._stop(item)
        for id, reason in failed.items():
            completed = [entry for entry in completed if entry.id != id] + self._fail({id}, reason)
        return completed

    def _fail(self, ids: set[str], error: Exception) -> list[EmbedOutcome]:
        """End tasks whose cells may hold values that are not finite."""
        pool, failing = self.model.pool, [item for item in self._running if item.id in ids]
        cells = [cell for item in failing for cell in item.cells]
        rows = [row for item in failing for row in pool.rows_of(item.cells)]
        for id in ids:
            self.cancel(id)
        self.model.runner.clear(cells, rows)
        return [EmbedOutcome(id, error) for id in ids]

    def _stop(self, item: _Input) -> None:
        self._running.remove(item)
        item.rows.cut(item.cells, 0)
        self.model.pool.free(item.cells)
        if self.model.pool.states is not None:
            self.model.pool.states.free(item.slot)
        item.reset()


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., n] scaled to a Euclidean length of 1."""
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(-1, keepdims=True))
    scaled: NDArray[np.float32] = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled


def embed(
    model: ModelContext,
    inputs: Sequence[Sequence[int]],
    *,
    pooling: str = "auto",
    normalize: bool | None = None,
    second: Sequence[int] = (),
    lora: AdapterScales | None = None,
) -> Iterator[Embedding | None]:
    """Embed token ids. Each step computes one batch and yields what it completed, or None.

    pooling: one of `POOLING`, or auto: as the model's file says. normalize: to a length of 1, except with
    `rank`; None: as the file says, else yes. second: for each input the position at which its second segment
    begins, 0 if it has one. lora: see `InferenceSessionConfig`. Raises ConfigError for empty inputs, ids
    outside of the vocabulary or a pooling that the model does not support, ContextOverflowError for inputs
    longer than the context, OutOfMemoryError if the cache has no room.
    """
    normalize = model.hp.normalize if normalize is None else normalize
    normalize = normalize and pooling != "rank" and (pooling != "auto" or model.hp.pooling != "rank")
    embedder = Embedder(model)
    embedder.submit("", inputs, pooling, second, default_adapters(model.params) if lora is None else lora)
    try:
        while embedder.has_work:
            completed = embedder.step()
            for _, result in completed or ():
                if isinstance(result, Exception):
                    raise result
                yield result._replace(vector=normalized(result.vector)) if normalize else result
            if not completed:
                yield None
    finally:
        embedder.cancel("")
