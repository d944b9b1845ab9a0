"""Log-probabilities of a prompt's own tokens, for `prompt_logprobs`, and `echo` with `logprobs`.

Unlike perplexity, it also reports the most likely tokens, and what it computes goes to the prefix cache,
where a request for the same prompt finds all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cache.cached_sequence import CachedSequence
from engine.cache.state_slots import NO_SLOT
from engine.config import adapter_scales
from engine.errors import (
    ConfigError,
    ContextOverflowError,
    DeviceError,
    EngineError,
    ModelError,
    OutOfMemoryError,
)
from engine.model.context import ModelContext
from engine.sampling.log_softmax import log_sum_exp, max_rows
from engine.sampling.parameters import MAX_LOGPROBS
from engine.scheduler.batch import next_item
from engine.types import AdapterScales


class LogprobRows(NamedTuple):
    """Float64 [tokens, 2 + 2 top]: a token's logprob, its rank (1: the most likely), then ids and logprobs of
    the most likely in its place.

    The first token of a prompt has none. last: these rows are the end of the prompt.
    """

    rows: NDArray[np.float64]
    last: bool


class _Prompt:
    """One prompt, of which `n_rows` tokens have their logits."""

    def __init__(
        self, model: ModelContext, tokens: Sequence[int], top: int, lora: AdapterScales, salt: str
    ) -> None:
        self.top, self.n_rows = top, 0
        self.sequence = CachedSequence(
            model.pool,
            model.prefix,
            tokens,
            original_context_length=model.hp.original_context_length,
            adapters=lora,
            salt=salt,
        )

    def attach(self) -> None:
        """Begin, or begin again, with the cached prefix of the part whose rows are known."""
        self.sequence.attach(limit=self.n_rows)


class PromptLogprobsRunner:
    """Computes prompts one after the other: `submit`, then `step`. Natural logs of the softmax [n_vocab]."""

    def __init__(self, model: ModelContext) -> None:
        self.model = model
        self._prompts: dict[str, _Prompt] = {}
        self.n_rows = 0  # of the batch that is computed, or was last

    @property
    def has_work(self) -> bool:
        return bool(self._prompts)

    def submit(
        self, id: str, tokens: Sequence[int], top: int = 0, lora: AdapterScales = (), salt: str = ""
    ) -> None:
        """Queue a prompt. top: at each place also the `top` most likely tokens. salt: of the prefix cache.

        Raises ConfigError for fewer than two tokens or ids outside of the vocabulary, ContextOverflowError
        for too many tokens, ModelError for a model that predicts no next token.
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
        lora = adapter_scales(lora, len(model.adapters))
        self._prompts[id] = _Prompt(model, tokens, min(top, n_vocab), lora, salt)

    def cancel(self, id: str) -> None:
        """Drop a prompt. Computed tokens stay cached."""
        prompt = self._prompts.pop(id, None)
        if prompt is not None:
            prompt.sequence.release()

    def yield_cells(self, n: int) -> None:
        """Make `n` cells available to streams. Prompts that lose their cells continue later."""
        for prompt in reversed(self._prompts.values()):
            if self.model.prefix.n_available >= n and not self.model.pool.lacks(n):
                return
            prompt.sequence.release()

    def step(self, reserve: int = 0) -> tuple[str, LogprobRows | Exception] | None:
        """Compute one batch of the oldest prompt. None: there is no room for one now.

        reserve: cells to leave to streams, which will free more when they end; with 0 nobody will, and a
        prompt that does not fit ends with OutOfMemoryError.
        """
        model = self.model
        id, prompt = next(iter(self._prompts.items()))
        sequence = prompt.sequence
        if reserve and model.pool.lacks_slots and sequence.slot == NO_SLOT:
            return None
        if not sequence.n_past:
            prompt.attach()
        begin, first = sequence.n_past, max(sequence.n_past, prompt.n_rows)
        end = min(begin + model.max_batch_tokens, first + max_rows(model.n_vocab), len(sequence.tokens))
        end = begin + sequence.chunk(end - begin)
        n, n_logits = end - begin, max(0, end - first)
        if reserve and (model.prefix.n_available < n + reserve or model.pool.lacks_rows(n + reserve)):
            return None
        try:
            model.prefix.make_room(n)
            self.n_rows = n
            model.runner.forward([next_item(sequence, n, n_logits)])
            result = LogprobRows(self._rows(prompt, end - n_logits, end), end == len(sequence.tokens))
        except Exception as error:
            self._fail(id)
            if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
                raise  # nothing can run after it
            return id, error
        sequence.advance(n)
        prompt.n_rows += len(result.rows)
        if result.last:
            self.cancel(id)
        return id, result

    def _rows(self, prompt: _Prompt, first: int, end: int) -> NDArray[np.float64]:
        """Rows from the logits of the last batch, those of the positions from `first` to before `end`."""
        tokens = prompt.sequence.tokens
        positions = range(first, min(end, len(tokens) - 1))
        rows = np.empty((len(positions), 2 + 2 * prompt.top))
        for row, position in zip(rows, positions, strict=True):
            logits = np.asarray(self.model.runner.logits(position - first))
            total = log_sum_exp(logits)
            if not math.isfinite(total):
                raise EngineError("the logits are not finite numbers: the weights or the device are faulty")
            best = most_likely(logits, prompt.top)
            token = tokens[position + 1]
            row[0], row[1] = logits[token] - total, rank(logits, token)
            row[2::2], row[3::2] = best, logits[best] - total
        return rows

    def _fail(self, id: str) -> None:
        """Drop a prompt whose cells may hold values that are not finite."""
        sequence, pool = self._prompts.pop(id).sequence, self.model.pool
        cells, rows = sequence.cells[:], pool.rows_of(sequence.cells)
        sequence.release(keep=False)
        self.model.runner.clear(*pool.freed(cells, rows))


def most_likely(logits: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Ids of the `n` greatest logits, greatest first; among equal ones the lower id first."""
    n = min(n, len(logits))
    if not n:
        return np.empty(0, np.intp)
    least = np.partition(logits, len(logits) - n)[len(logits) - n]
    ids = np.flatnonzero(logits >= least)
    return ids[np.lexsort((ids, -logits[ids]))][:n]


def rank(logits: NDArray[np.float32], id: int) -> int:
    """The position of a token in the order of `most_likely`, starting at 1."""
    logit = logits[id]
    return 1 + int(np.count_nonzero(logits > logit)) + int(np.count_nonzero(logits[:id] == logit))
