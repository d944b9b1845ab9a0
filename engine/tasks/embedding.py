"""Embeddings: the hidden states of a text, pooled to one vector.

pooling: `mean` of all tokens, `cls` the first, `last` the last, `none` all of them; `rank`: scores that the
model's head makes of one token's state. Texts share batches; a model that sees both ways gets each whole,
others in chunks, with the cells of the cache that they need.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, ContextOverflowError, DeviceError, EngineError, OutOfMemoryError
from engine.model.context import ModelContext
from engine.nn.hparams import POOLING
from engine.scheduler.batch import BatchItem


class Embedding(NamedTuple):
    """The vector of input number `input`: float32 [n_embd]; with pooling `none` [tokens, n_embd], with `rank`
    [n_scores].
    """

    input: int
    vector: NDArray[np.float32]


class Done(NamedTuple):
    """What a step brought of a job: an embedding, or the error that ended it."""

    job: str
    found: Embedding | Exception


class _Input:
    """One text on its way."""

    def __init__(
        self, job: str, index: int, tokens: Sequence[int], pooling: str, second: int, causal: bool
    ) -> None:
        self.job, self.index, self.tokens, self.pooling = job, index, tokens, pooling
        self.second = second
        self.scores = pooling == "rank"
        # The one token whose state is wanted: a causal model knows all of the text at the last one only.
        self.last = pooling == "last" or (self.scores and causal)
        self.first = pooling == "cls" or (self.scores and not causal)
        self.begin()

    def begin(self) -> None:
        """From the start, with no cells."""
        self.cells = array("i")
        self.n_past = 0
        self.n_next = 0
        self.states: list[NDArray[np.float32]] = []

    def rows(self, n: int, n_short: int) -> BatchItem:
        self.n_next = n
        end = self.n_past + n
        wanted = n
        if self.last:
            wanted = int(end == len(self.tokens))
        elif self.first:
            wanted = 0 if self.n_past else -1
        long = 0 < n_short < len(self.tokens)
        tokens = list(self.tokens[self.n_past : end])
        return BatchItem(tokens, self.cells[:end], self.n_past, wanted, long, self.second)

    def take(self, states: NDArray[np.float32]) -> None:
        """Keep what the pooling needs of the states [rows wanted, n_embd] of the last rows."""
        self.n_past += self.n_next
        if not len(states):
            return
        if self.pooling == "mean":  # sums of many terms: float32 would lose some of them
            self.states.append(states.sum(0, dtype=np.float64, keepdims=True))
        else:
            self.states.append(states.copy())

    def result(self) -> NDArray[np.float32]:
        found = np.concatenate(self.states)
        if self.pooling == "mean":
            found = found.sum(0, keepdims=True) / len(self.tokens)
        if not np.isfinite(found).all():
            raise EngineError("the embedding has values that are not finite numbers; the model is damaged")
        found = found.astype(np.float32)
        return found if self.pooling == "none" else found[0]


class Embedder:
    """Embeds the inputs of many jobs, which take turns and share batches: `submit`, then `step`."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._waiting: dict[str, deque[_Input]] = {}  # the job whose turn it is first
        self._running: list[_Input] = []

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(
        self,
        job: str,
        inputs: Sequence[Sequence[int]],
        pooling: str = "auto",
        second: Sequence[int] = (),
    ) -> None:
        """Queue inputs. Raises what `embed` raises; nothing is queued then."""
        model = self.model
        if pooling == "auto":
            pooling = model.hp.pooling
        if pooling not in POOLING:
            raise ConfigError(f"pooling is {pooling!r}; it must be auto, {', '.join(POOLING)}")
        if pooling == "rank" and not model.hp.n_scores:
            raise ConfigError("the model has no head that scores: it is no model for ranking")
        for tokens in inputs:
            if not tokens:
                raise ConfigError("an input is empty; an embedding needs at least one token")
            if len(tokens) > model.n_ctx:
                raise ContextOverflowError(len(tokens), model.n_ctx)
            if not 0 <= min(tokens) <= max(tokens) < model.hp.n_vocab:
                raise ConfigError(f"a token id is outside of the vocabulary of {model.hp.n_vocab} tokens")
        if inputs:
            places = second or [0] * len(inputs)
            self._waiting[job] = deque(
                _Input(job, i, tokens, pooling, place, model.hp.causal)
                for i, (tokens, place) in enumerate(zip(inputs, places, strict=True))
            )

    def cancel(self, job: str) -> None:
        """Drop what is left of a job."""
        self._waiting.pop(job, None)
        for item in [item for item in self._running if item.job == job]:
            self._leave(item)

    def step(self, reserve: int = 0) -> list[Done] | None:
        """Compute one batch; what it completed. None: there is no room for one now.

        reserve: cells to leave to others, who come first and are waited for; with 0 nobody gives cells back,
        and a job that does not fit ends with OutOfMemoryError.
        """
        try:
            batch = self._batch(reserve)
        except OutOfMemoryError as error:
            return self._fail({next(iter(self._waiting))}, error)
        if not batch:
            return None
        try:
            self.model.runner.forward(batch, hidden=True, scores=self._running[0].scores)
        except OutOfMemoryError as error:  # the others may fit without the largest
            largest = max(range(len(batch)), key=lambda i: len(batch[i].tokens))
            return self._fail({self._running[largest].job}, error)
        except DeviceError:
            raise  # nothing runs without it
        except Exception as error:
            return self._fail({item.job for item in self._running}, error)
        return self._collect(batch)

    def yield_cells(self, n: int) -> None:
        """See that others can have `n` cells, if need be by beginning running inputs anew later."""
        while self._running and self.model.prefix.n_available < n:
            item = self._running[-1]
            self._leave(item)
            self._waiting.setdefault(item.job, deque()).appendleft(item)

    def _batch(self, reserve: int) -> list[BatchItem]:
        """Rows of the unfinished input, if there is one, and of as many more as fit."""
        model, waiting = self.model, self._waiting
        budget, batch = model.max_batch_tokens, []
        for item in self._running:
            n = min(len(item.tokens) - item.n_past, budget)
            batch.append(item.rows(n, model.hp.n_short))
            budget -= n
        while waiting and budget:
            job = next(iter(waiting))
            item = waiting[job][0]
            n = len(item.tokens)
            if n > budget and (batch or not model.hp.causal):
                break
            if batch and item.scores != self._running[0].scores:  # a graph has outputs of one kind
                break
            if (batch or reserve) and model.prefix.n_available < n + reserve:
                break
            model.prefix.make_room(n)
            item.cells = model.pool.alloc(n)
            self._running.append(item)
            rest = waiting.pop(job)
            rest.popleft()
            if rest:
                waiting[job] = rest  # behind the others
            batch.append(item.rows(min(n, budget), model.hp.n_short))
            budget -= min(n, budget)
        return batch

    def _collect(self, batch: list[BatchItem]) -> list[Done]:
        """What the batch completed."""
        model, row = self.model, 0
        done: list[Done] = []
        failed: dict[str, Exception] = {}
        for item, rows in zip(list(self._running), batch, strict=True):
            n = abs(rows.logits)
            states = [np.asarray(model.runner.hidden(row + i)) for i in range(n)]
            row += n
            item.take(np.stack(states) if states else np.empty((0, model.hp.n_embd), np.float32))
            if item.n_past < len(item.tokens):
                continue
            try:
                done.append(Done(item.job, Embedding(item.index, item.result())))
            except EngineError as error:
                failed[item.job] = error
            else:
                self._leave(item)
        for job, reason in failed.items():
            done = [entry for entry in done if entry.job != job] + self._fail({job}, reason)
        return done

    def _fail(self, jobs: set[str], error: Exception) -> list[Done]:
        """End jobs. What they computed may be no numbers."""
        cells = [cell for item in self._running if item.job in jobs for cell in item.cells]
        for job in jobs:
            self.cancel(job)
        self.model.runner.clear(cells)
        return [Done(job, error) for job in jobs]

    def _leave(self, item: _Input) -> None:
        self._running.remove(item)
        self.model.pool.free(item.cells)
        item.begin()


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., n] of the same directions and a length of 1."""
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(-1, keepdims=True))
    found: NDArray[np.float32] = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return found


def embed(
    model: ModelContext,
    inputs: Sequence[Sequence[int]],
    *,
    pooling: str = "auto",
    normalize: bool = True,
    second: Sequence[int] = (),
) -> Iterator[Embedding | None]:
    """Embed token ids; each step computes one batch and yields what it completed, or None.

    pooling: one of `POOLING`, or auto: as the model's file says. normalize: to a length of 1, but for `rank`.
    second: for each input, where the second of two sentences begins, 0 if there is one. Raises ConfigError
    for empty inputs, ids outside of the vocabulary or a pooling that the model has not, ContextOverflowError
    for inputs longer than the context, OutOfMemoryError if the cache has no room.
    """
    normalize = normalize and pooling != "rank" and (pooling != "auto" or model.hp.pooling != "rank")
    embedder = Embedder(model)
    embedder.submit("", inputs, pooling, second)
    try:
        while embedder.has_work:
            done = embedder.step()
            for _, found in done or ():
                if isinstance(found, Exception):
                    raise found
                yield found._replace(vector=normalized(found.vector)) if normalize else found
            if not done:
                yield None
    finally:
        embedder.cancel("")
