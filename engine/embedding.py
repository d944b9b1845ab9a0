"""Embeddings: the hidden states of a text, pooled to one vector.

pooling: `mean` of all tokens, `cls` the first, `last` the last, `none` all of them. Texts share batches; a
model that sees both ways gets each whole, others in chunks, with the cells of the cache that they need.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.arch.spec import POOLING
from engine.errors import ConfigError, ContextOverflowError, EngineError
from engine.session import Rows, make_room

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.model import Model


class Embedding(NamedTuple):
    """The vector of input number `input`: float32 [n_embd], with pooling `none` [tokens, n_embd]."""

    input: int
    vector: NDArray[np.float32]


class _Input:
    """One text on its way."""

    def __init__(self, index: int, tokens: Sequence[int], pooling: str) -> None:
        self.index, self.tokens, self.pooling = index, tokens, pooling
        self.cells = array("i")
        self.n_past = 0
        self.n_next = 0
        self.states: list[NDArray[np.float32]] = []

    def rows(self, n: int, n_short: int) -> Rows:
        self.n_next = n
        end = self.n_past + n
        wanted = n
        if self.pooling == "last":
            wanted = int(end == len(self.tokens))
        elif self.pooling == "cls" and self.n_past:
            wanted = 0
        long = 0 < n_short < len(self.tokens)
        return Rows(list(self.tokens[self.n_past : end]), self.cells[:end], self.n_past, wanted, long)

    def take(self, states: NDArray[np.float32]) -> None:
        """Keep what the pooling needs of the states [rows wanted, n_embd] of the last rows."""
        import numpy as np

        self.n_past += self.n_next
        if not len(states):
            return
        if self.pooling == "cls":
            self.states.append(states[:1].copy())
        elif self.pooling == "mean":  # sums of many terms: float32 would lose some of them
            self.states.append(states.sum(0, dtype=np.float64, keepdims=True))
        else:
            self.states.append(states.copy())

    def result(self, normalize: bool) -> NDArray[np.float32]:
        import numpy as np

        found = np.concatenate(self.states)
        if self.pooling == "mean":
            found = found.sum(0, keepdims=True) / len(self.tokens)
        if not np.isfinite(found).all():
            raise EngineError("the embedding has values that are not finite numbers; the model is damaged")
        if normalize:
            length = np.sqrt(np.square(found, dtype=np.float64).sum(-1, keepdims=True))
            found = found / np.maximum(length, 1e-12)
        found = found.astype(np.float32)
        return found if self.pooling == "none" else found[0]


def embed(
    model: Model, inputs: Sequence[Sequence[int]], *, pooling: str = "auto", normalize: bool = True
) -> Iterator[Embedding | None]:
    """Embed token ids; each step computes one batch and yields what it completed, or None.

    pooling: one of `POOLING`, or auto: as the model's file says. normalize: to a length of 1. Raises
    ConfigError for empty inputs or ids outside of the vocabulary, ContextOverflowError for inputs longer than
    the context, OutOfMemoryError if the cache has no room.
    """
    if pooling == "auto":
        pooling = model.hp.pooling
    if pooling not in POOLING:
        raise ConfigError(f"pooling is {pooling!r}; it must be auto, {', '.join(POOLING)}")
    for tokens in inputs:
        if not tokens:
            raise ConfigError("an input is empty; an embedding needs at least one token")
        if len(tokens) > model.n_ctx:
            raise ContextOverflowError(len(tokens), model.n_ctx)
        if not 0 <= min(tokens) <= max(tokens) < model.hp.n_vocab:
            raise ConfigError(f"a token id is outside of the vocabulary of {model.hp.n_vocab} tokens")
    waiting = [_Input(i, tokens, pooling) for i, tokens in enumerate(inputs)]
    waiting.reverse()
    running: list[_Input] = []
    try:
        while waiting or running:
            batch = _batch(model, waiting, running)
            model.runner.forward(batch, hidden=True)
            yield from _collect(model, running, batch, normalize)
    finally:
        for item in running:
            model.pool.free(item.cells)


def _batch(model: Model, waiting: list[_Input], running: list[_Input]) -> list[Rows]:
    """Rows of the unfinished input, if there is one, and of as many more as fit."""
    budget, batch = model.max_batch_tokens, []
    for item in running:
        n = min(len(item.tokens) - item.n_past, budget)
        batch.append(item.rows(n, model.hp.n_short))
        budget -= n
    while waiting and budget:
        item = waiting[-1]
        n = len(item.tokens)
        if n > budget and (batch or not model.hp.causal):
            break
        make_room(model.pool, model.prefix, n)
        item.cells = model.pool.alloc(n)
        running.append(waiting.pop())
        batch.append(item.rows(min(n, budget), model.hp.n_short))
        budget -= min(n, budget)
    return batch


def _collect(
    model: Model, running: list[_Input], batch: list[Rows], normalize: bool
) -> Iterator[Embedding | None]:
    """What the batch completed; None if that is nothing, so that each batch gives its caller a turn."""
    import numpy as np

    row, done = 0, []
    for item, rows in zip(list(running), batch, strict=True):
        states = [np.asarray(model.runner.hidden(row + i)) for i in range(rows.logits)]
        row += rows.logits
        item.take(np.stack(states) if states else np.empty((0, model.hp.n_embd), np.float32))
        if item.n_past == len(item.tokens):
            running.remove(item)
            model.pool.free(item.cells)
            done.append(Embedding(item.index, item.result(normalize)))
    yield from done or (None,)
