"""How likely a model finds the tokens of a text: what `echo` with `logprobs` shows of a prompt.

Unlike perplexity it wants the likeliest tokens too, and what it computes goes to the prefix cache, so that
a request for the same prompt finds all of it there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cache.cached_sequence import CachedSequence
from engine.errors import (
    ConfigError,
    ContextOverflowError,
    DeviceError,
    EngineError,
    ModelError,
    OutOfMemoryError,
)
from engine.model.context import ModelContext
from engine.sampling.parameters import MAX_LOGPROBS
from engine.scheduler.batch import BatchItem
from engine.types import Token

LOGITS_BYTES = 64 << 20  # of one batch: most of the memory that scoring takes


class Scores(NamedTuple):
    """Float64 [tokens, 1 + 2 top]: a token's logprob, then id and logprob of the likeliest ones in its place.

    The first token of a text has none. `last`: these are the end of the text.
    """

    rows: NDArray[np.float64]
    last: bool


def tokens_of(ids: Sequence[int], rows: NDArray[np.float64]) -> list[Token]:
    """The rows of all tokens of a text but the first, as they would be told if they had been generated."""
    return [
        Token(id, row[0], [(int(i), p) for i, p in zip(row[1::2], row[2::2], strict=True)])
        for id, row in zip(ids[1:], rows.tolist(), strict=True)
    ]


class _Text:
    def __init__(self, model: ModelContext, tokens: Sequence[int], top: int) -> None:
        self.top, self.n_scored = top, 0
        self.sequence = CachedSequence(model.pool, model.prefix, tokens, n_short=model.hp.n_short)


class Scorer:
    """Scores texts one after the other: `submit`, then `step`. Natural logs of the softmax [n_vocab]."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._texts: dict[str, _Text] = {}

    @property
    def has_work(self) -> bool:
        return bool(self._texts)

    def submit(self, job: str, tokens: Sequence[int], top: int = 0) -> None:
        """Queue a text. top: of each place also the `top` most likely tokens.

        Raises ConfigError for too short a text or ids outside of the vocabulary, ContextOverflowError for too
        long a one, ModelError for a model that predicts no next token.
        """
        model, n_vocab = self.model, self.model.hp.n_vocab
        if not 0 <= top <= MAX_LOGPROBS:
            raise ConfigError(f"top is {top}; it must lie between 0 and {MAX_LOGPROBS}")
        if len(tokens) < 2:
            raise ConfigError("the first token of a text has no log-probability; at least two are needed")
        if not 0 <= min(tokens) <= max(tokens) < n_vocab:
            raise ConfigError(f"a token id is outside of the vocabulary of {n_vocab} tokens")
        if len(tokens) > model.n_ctx:
            raise ContextOverflowError(len(tokens), model.n_ctx)
        if not model.hp.causal:
            raise ModelError(
                f"a {model.gguf.arch} model predicts no next token, so it has no log-probabilities"
            )
        self._texts[job] = _Text(model, tokens, min(top, n_vocab))

    def cancel(self, job: str) -> None:
        text = self._texts.pop(job, None)
        if text is not None:
            text.sequence.release()

    def yield_cells(self, n: int) -> None:
        """See that others can have `n` cells: a text goes on later, from where it was."""
        for text in reversed(self._texts.values()):
            if self.model.prefix.n_available >= n:
                return
            text.sequence.release()

    def step(self, reserve: int = 0) -> tuple[str, Scores | Exception] | None:
        """Compute one batch of the oldest text. None: there is no room for one now.

        reserve: cells to leave to others, who come first and are waited for; with 0 nobody gives cells back,
        and a text that does not fit ends with OutOfMemoryError.
        """
        model = self.model
        job, text = next(iter(self._texts.items()))
        sequence = text.sequence
        if not sequence.n_past:
            self._attach(text)
        begin, first = sequence.n_past, max(sequence.n_past, text.n_scored)
        most = max(1, LOGITS_BYTES // (4 * model.hp.n_vocab))
        end = min(begin + model.max_batch_tokens, first + most, len(sequence.tokens))
        n, wanted = end - begin, max(0, end - first)
        if reserve and model.prefix.n_available < n + reserve:
            return None
        try:
            model.prefix.make_room(n)
            sequence.grow(n)
            chunk = sequence.tokens[begin:end].tolist()
            model.runner.forward([BatchItem(chunk, sequence.cells, begin, wanted, sequence.long)])
            found = Scores(self._rows(text, end - wanted, end), end == len(sequence.tokens))
        except Exception as error:
            self._fail(job)
            if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
                raise  # nothing runs without it
            return job, error
        sequence.n_past = end
        text.n_scored += len(found.rows)
        if found.last:
            self.cancel(job)
        return job, found

    def _attach(self, text: _Text) -> None:
        """Begin, or begin again: with what is cached of the part whose logits are known."""
        sequence = text.sequence
        sequence.long = sequence.wants_long
        match = self.model.prefix.acquire(sequence.tokens, text.n_scored, sequence.long)
        sequence.node, sequence.cells = match.node, match.cells
        sequence.n_past = sequence.n_shared = match.n

    def _rows(self, text: _Text, first: int, end: int) -> NDArray[np.float64]:
        """Of the last batch, whose logits are those of the places from `first` to before `end`."""
        tokens = text.sequence.tokens
        places = range(first, min(end, len(tokens) - 1))
        rows = np.empty((len(places), 1 + 2 * text.top))
        for row, place in zip(rows, places, strict=True):
            logits = np.asarray(self.model.runner.logits(place - first))
            highest = float(logits.max())
            if not math.isfinite(highest):
                raise EngineError("the logits are not finite numbers: the weights or the device are faulty")
            # Sums of many small terms: float32 would lose some of them.
            total = highest + math.log(float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64)))
            best = most_likely(logits, text.top)
            row[0] = logits[tokens[place + 1]] - total
            row[1::2], row[2::2] = best, logits[best] - total
        return rows

    def _fail(self, job: str) -> None:
        """What a text computed may be no numbers."""
        sequence = self._texts.pop(job).sequence
        cells = sequence.cells[:]
        sequence.release(keep=False)
        self.model.runner.clear([cell for cell in cells if self.model.pool.is_free(cell)])


def most_likely(logits: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Ids of the `n` greatest, greatest first; of equal ones the lower id."""
    n = min(n, len(logits))
    if not n:
        return np.empty(0, np.intp)
    least = np.partition(logits, len(logits) - n)[len(logits) - n]
    ids = np.flatnonzero(logits >= least)
    return ids[np.lexsort((ids, -logits[ids]))][:n]
