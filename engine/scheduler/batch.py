"""Batches: tokens that are computed together, the sequences they belong to, and the runner that computes
them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple, Protocol

from engine.cache.cached_sequence import CachedSequence
from engine.cache.state_slots import NO_SLOT
from engine.config import MAX_DRAFT
from engine.scheduler.admission import Admission
from engine.scheduler.drafting import Drafting
from engine.scheduler.pace import PrefillPace
from engine.scheduler.sequence import ScheduledSequence
from engine.types import AdapterScales


class BatchItem(NamedTuple):
    """The next tokens of one sequence, to be computed in one batch with others.

    cells: the sequence's whole table, cells[p] holds position p; it covers the new tokens as well, so
        len(cells) == n_past + len(tokens). Several sequences may share the cells of a common beginning.
    logits: how many of the last tokens need logits; -1: only the first token does.
    uses_long_rope: whether the sequence uses the rotary factors of long sequences.
    adapters: the LoRA adapters that compute the tokens.
    second: position of the first token of the second segment, for encoders with two; 0: one segment.
    slot: of the recurrent state after `n_past` tokens, which then is that after the new tokens; -1: the model
        has none.
    """

    tokens: list[int]
    cells: array[int]
    n_past: int
    logits: int
    uses_long_rope: bool = False
    second: int = 0
    adapters: AdapterScales = ()
    slot: int = -1

    @property
    def draft(self) -> list[int]:
        """Its last tokens, if they are drafts: all but the first token with logits."""
        return self.tokens[len(self.tokens) - self.logits + 1 :] if self.logits > 1 else []


def next_item(sequence: CachedSequence, n: int, logits: int, draft: Sequence[int] = ()) -> BatchItem:
    """The next `n` tokens of a sequence and a draft of those after them, with cells allocated for all."""
    n_past = sequence.n_past
    sequence.grow(n + len(draft))
    tokens = sequence.tokens[n_past : n_past + n].tolist()
    return BatchItem(
        [*tokens, *draft],
        sequence.cells,
        n_past,
        logits,
        sequence.uses_long_rope,
        adapters=sequence.adapters,
        slot=sequence.slot,
    )


class BatchRunner(Protocol):
    """Computes batches; see `engine.graph.model_runner`. Only the engine thread calls it."""

    @property
    def n_vocab(self) -> int:
        """Length of a row of logits."""

    @property
    def original_context_length(self) -> int:
        """See `HParams.original_context_length`."""

    @property
    def compute_ms(self) -> float:
        """Time spent inside ggml by the last forward, in milliseconds."""

    def forward(self, items: Sequence[BatchItem], /, hidden: bool = False, scores: bool = False) -> int:
        """Compute one batch. Returns its number of rows of logits: the requested ones, in the order of
        tokens.

        hidden: rows of hidden states instead; with `scores`, the outputs of the classification head.
        """

    def logits(self, i: int, /) -> Any:
        """Row `i` of the last forward: float32 [n_vocab], valid until the next forward."""

    def hidden(self, i: int, /) -> Any:
        """Row `i` of the last forward with `hidden`: float32 [n_embd] or [n_scores], valid as long."""

    def clear(self, cells: Sequence[int], rows: Sequence[int] = (), /) -> None:
        """Zero these cells and these rows of layers with a window.

        No sequence uses them, and they may contain values that are not finite.
        """


@dataclass
class Batch:
    """The batch of one step. `sequences[i]` is the sequence of `items[i]`.

    n_decode: the first sequences, which decode and have one row each, plus one for each drafted token.
    n_draft: drafted tokens of all sequences. n_cached: tokens of prompts that begin with this batch and were
    in the prefix cache.
    """

    sequences: list[ScheduledSequence] = field(default_factory=list)
    items: list[BatchItem] = field(default_factory=list)
    n_decode: int = 0
    n_draft: int = 0
    n_cached: int = 0

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def n_logits(self) -> int:
        return sum(item.logits for item in self.items)

    @property
    def n_rows(self) -> int:
        return sum(len(item.tokens) for item in self.items)

    def add(self, sequence: ScheduledSequence, n: int, draft: Sequence[int] = ()) -> None:
        """Add the next `n` tokens of a sequence, and allocate their cells.

        Only the last token has logits, and the drafted ones after it.
        """
        item = next_item(sequence, n, int(n == sequence.n_pending) + len(draft), draft)
        self.sequences.append(sequence)
        self.items.append(item)

    def needing_logits(self) -> list[ScheduledSequence]:
        """The sequences with rows of logits."""
        return [s for s, item in zip(self.sequences, self.items, strict=True) if item.logits]

    def pop_largest(self) -> ScheduledSequence:
        """Remove and return the sequence with the most tokens."""
        i = max(range(len(self.items)), key=lambda i: len(self.items[i].tokens))
        del self.items[i]
        return self.sequences.pop(i)


class BatchBuilder:
    """Chooses what a step computes.

    One token of every decoding sequence, with a draft of the next ones where that pays; then prompts, at most
    one chunk each, in what is left of `max_batch_tokens` and of the `pace`. So a long prompt delays running
    streams by at most one chunk per step. Clients share what is left for prompts (`fair_share`); the prompts
    of one client come in order of arrival.
    """

    def __init__(self, admission: Admission, max_batch_tokens: int) -> None:
        self.pace = PrefillPace()
        self.missed: Counter[str] = Counter()  # tokens of prompts that were not cached, by reason
        self.drafting = Drafting()
        self._admission = admission
        self._max_batch_tokens = max_batch_tokens

    def build(self, running: Sequence[ScheduledSequence]) -> Batch:
        """The next batch of these sequences, each of which has a free cell."""
        batch, pool = Batch(), self._admission.pool
        decode: list[ScheduledSequence] = []
        prefill: list[ScheduledSequence] = []
        for sequence in running:
            sequence.refit()
            if sequence.n_pending == 1 and (pool.states is None or sequence.slot != NO_SLOT):
                decode.append(sequence)
            else:
                prefill.append(sequence)
        batch.n_decode = len(decode)
        budget = self._max_batch_tokens - batch.n_decode
        limit = self.pace.limit(batch.n_decode) if prefill else None
        if limit is not None:
            budget = min(budget, limit)
        drafts = self._drafts(decode, len(running), budget // 2 if prefill else budget)
        for sequence, draft in zip(decode, drafts, strict=True):
            batch.add(sequence, 1, draft)
            batch.n_draft += len(draft)
        budget -= batch.n_draft
        if pool.has_checkpoints:
            for sequence in prefill:  # before any of them goes on: where the next ones want checkpoints
                if not sequence.n_past:
                    self._admission.may_start(sequence)
        for sequences, part in self._admission.queues.fair.parts(prefill):
            left = ceil(budget * part)
            for sequence in sequences:
                if not left:
                    break
                n = self._add_chunk(batch, sequence, left)
                left, budget = left - n, budget - n
        return batch

    def measured(self, batch: Batch, compute_ms: float, ms: float) -> None:
        """Record that a batch took `ms` milliseconds, `compute_ms` of them inside ggml."""
        n_rows, n_decode = batch.n_rows, batch.n_decode + batch.n_draft
        self.pace.measured(n_decode, n_rows - n_decode, compute_ms)
        if n_rows == n_decode and any(sequence.drafts for sequence in batch.sequences):
            self.drafting.costs.measured(n_rows, compute_ms, ms)

    def _drafts(self, decode: list[ScheduledSequence], n_running: int, budget: int) -> list[list[int]]:
        """The drafts for these sequences, in the cells beyond the one that each running sequence needs."""
        if not self.drafting.enabled or not any(sequence.drafts for sequence in decode):
            return [[] for _ in decode]
        pool = self._admission.pool
        drafts = self.drafting.choose(decode, min(budget, MAX_DRAFT))
        n_drafted = sum(map(len, drafts))
        if n_drafted > pool.n_ready - n_running:
            self._admission.prefix.evict(n_drafted - (pool.n_free - n_running))
            left = max(pool.n_ready - n_running, 0)
            for draft in drafts:
                del draft[left:]
                left -= len(draft)
        return drafts

    def _add_chunk(self, batch: Batch, sequence: ScheduledSequence, budget: int) -> int:
        """Add the next chunk of a prompt and return its size. A chunk shrinks to the available cells."""
        admission = self._admission
        if not sequence.n_past:
            if not admission.may_start(sequence) or (sequence.slot == NO_SLOT and admission.pool.lacks_slots):
                return 0
            cached = sequence.attach()
            if sequence.cached_n is None:
                sequence.cached_n = min(cached, sequence.n_prompt - 1)
                batch.n_cached += sequence.cached_n
                if (n_missed := sequence.n_prompt - 1 - sequence.cached_n) > 0:
                    self.missed[sequence.miss] += n_missed
        pool, n_past = admission.pool, sequence.n_past
        n = min(sequence.n_pending, sequence.n_batch, budget, max(sequence.n_chunked - n_past, 1))
        n = sequence.chunk(n)
        if n > pool.n_ready:
            admission.prefix.evict(n - pool.n_free)
            n = min(n, pool.n_ready)
            if not n:
                return 0
        batch.add(sequence, n)
        return n
