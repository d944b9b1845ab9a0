"""Drafts by a draft model: a smaller model with the same vocabulary that computes each text as well.

It drafts the likeliest token of its own logits, round by round, for all sequences together. It has its own
cells and prefix cache: a sequence of it follows the target's, and goes back behind a wrong draft. What it
computes never reaches a text, so nothing about it must be exact.
"""

from __future__ import annotations

import logging
from bisect import bisect
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.errors import DeviceError, OutOfMemoryError
from engine.scheduler.admission import check_cells
from engine.scheduler.batch import BatchItem, BatchRunner, next_item
from engine.scheduler.drafter import Worth
from engine.scheduler.drafting import StepCosts
from engine.scheduler.sequence import ScheduledSequence, SequenceState

log = logging.getLogger("engine")

BOUNDS = (0.3, 0.5, 0.7, 0.85, 0.95)  # between the classes of a drafted token, by the draft's probability
# How likely a token of each class is right, before anything is known of the text.
FIRST_CHANCES = (0.15, 0.4, 0.6, 0.75, 0.9, 0.97)
FIRST_WEIGHT = 4  # observations that this counts for
LAST_WEIGHT = 32  # observations after which old ones are forgotten
FIRST_CHANCE = 0.7  # of a token that is not drafted yet
RECOVERY = 1 / 256  # by which a text's chance returns to that with each token that was not drafted
DOUBT = 0.99  # see `StepCosts.fade`
FEW = 32  # rows of a batch from which on it is not the next token of a text, but the text up to there
GAIN = 0.2  # of the time for the rest of a text, which drafts may save: no more is spent on catching up
SMALLEST_CHUNK = 16  # tokens of a text with which the model catches up, however long they take
WEIGHT = 0.25  # of a new measurement


class DraftedSequence(CachedSequence):
    """What the draft model has computed of a sequence; behind that, perhaps tokens that it drafted.

    n_known: tokens of the sequence when it was last looked at. n_dropped: its own. guesses: the tokens that
    were drafted then, and their classes. chance: that the next drafted token is right; observed: what it was
    when one was drafted last, None: none was. is_foreign: it has tokens that the draft model does not know.
    """

    __slots__ = (
        "_chances",
        "_weight",
        "_weights",
        "chance",
        "guesses",
        "is_foreign",
        "n_dropped",
        "n_known",
        "observed",
        "owner",
    )

    def __init__(
        self, owner: ScheduledSequence, pool: CellPool, prefix: PrefixCache, context: int, chance: float
    ) -> None:
        """context: the model's `original_context_length`. chance: before anything is known of the text."""
        shared = prefix if owner.prefix is not None else None
        super().__init__(pool, shared, original_context_length=context, salt=owner.salt)
        self.owner, self.n_dropped, self.n_known = owner, owner.n_dropped, len(owner.tokens)
        self.guesses: list[tuple[int, int]] = []
        self.chance = chance
        self.observed: float | None = None
        self._weight, self.is_foreign = FIRST_WEIGHT, False
        self._chances = list(FIRST_CHANCES)
        self._weights = [FIRST_WEIGHT] * len(FIRST_CHANCES)

    def follow(self, n_vocab: int) -> None:
        """Take the tokens that are new, go back behind a wrong draft, and learn from it."""
        tokens, own = self.owner.tokens, self.tokens
        self._learn()
        n, end = self.n_known, min(len(own), len(tokens))
        while n < end and own[n] == tokens[n]:
            n += 1
        if n < len(own):
            self.truncate(n)
        new = tokens[len(self.tokens) :]
        self.tokens.extend(new)
        self.is_foreign = self.is_foreign or max(new, default=0) >= n_vocab
        self.n_known = len(tokens)
        self.reach(self.n_past)

    def chance_of(self, kind: int) -> float:
        """That a drafted token of this class is right."""
        return self._chances[kind]

    def _learn(self) -> None:
        """From the guesses up to the first wrong one, also from those that were not worth a row."""
        tokens = self.owner.tokens
        if not self.guesses:
            self.chance += RECOVERY * (len(tokens) - self.n_known) * (FIRST_CHANCE - self.chance)
            return
        for (token, kind), right in zip(self.guesses, tokens[self.n_known :], strict=False):
            is_right = token == right
            weight = self._weights[kind] = min(self._weights[kind] + 1, LAST_WEIGHT)
            self._chances[kind] += (is_right - self._chances[kind]) / weight
            self._weight = min(self._weight + 1, LAST_WEIGHT)
            self.observed = self.chance = self.chance + (is_right - self.chance) / self._weight
            if not is_right:
                break
        self.guesses = []


class Tail:
    """The draft of one sequence while it grows: its tokens, and the chance that all are right."""

    __slots__ = ("chance", "left", "sequence", "tokens")

    def __init__(self, sequence: DraftedSequence, left: int) -> None:
        self.sequence, self.left = sequence, left
        self.tokens: list[int] = []
        self.chance = 1.0

    def add(self, token: int, kind: int, worth: Worth) -> bool:
        """The next token; whether another one is worth drafting."""
        sequence = self.sequence
        sequence.guesses.append((token, kind))
        self.chance *= sequence.chance_of(kind)
        if self.chance < worth.verified:
            return False
        self.tokens.append(token)
        self.left -= 1
        return self.left > 0 and self.chance * sequence.chance >= worth.drafted


class ModelDrafter:
    """Drafts for sequences of another model, of which it knows the tokens only."""

    def __init__(
        self,
        runner: BatchRunner,
        pool: CellPool,
        prefix: PrefixCache,
        *,
        n_ctx: int,
        n_vocab: int,
        max_batch_tokens: int,
    ) -> None:
        """The draft model's parts and limits.

        n_ctx: its longest text. n_vocab: tokens that both models have.
        """
        self._runner, self._pool, self._prefix = runner, pool, prefix
        self._n_ctx, self._n_vocab, self._max_batch_tokens = n_ctx, n_vocab, max_batch_tokens
        self._sequences: dict[str, DraftedSequence] = {}
        self._token_ms = 0.0  # of a text with which it catches up
        self._chance = FIRST_CHANCE  # of texts on average
        self.costs = StepCosts()
        self.enabled = True

    @property
    def round_ms(self) -> float:
        return self.costs.first_ms

    @property
    def row_ms(self) -> float:
        return self.costs.first_ms * self.costs.row

    def chances(self, sequence: ScheduledSequence, n: int) -> Sequence[float]:
        if not self.enabled:
            return ()
        own = self._sequences.get(sequence.id)
        if own is not None and own.n_dropped != sequence.n_dropped:  # its context was shifted
            self.forget(sequence)
            own = None
        if own is None:
            context = self._runner.original_context_length
            own = DraftedSequence(sequence, self._pool, self._prefix, context, self._chance)
            self._sequences[sequence.id] = own
        own.follow(self._n_vocab)
        n = 0 if own.is_foreign else min(n, self._n_ctx - len(own.tokens))
        return [own.chance] * n

    def is_ready(self, sequence: ScheduledSequence) -> bool:
        return sequence.id in self._sequences and self._sequences[sequence.id].n_pending < FEW

    def draft(
        self, sequences: Sequence[ScheduledSequence], counts: Sequence[int], worth: Worth
    ) -> list[list[int]]:
        pairs = zip(sequences, counts, strict=True)
        tails = [Tail(self._sequences[sequence.id], n) for sequence, n in pairs]
        try:
            live = self._catch_up([tail for tail in tails if tail.left], worth)
            while live:
                rows = enumerate(live)
                live = [tail for row, tail in rows if tail.add(*self._guess(row), worth)]
                live = self._next_round(live)
        except Exception as error:
            if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
                raise
            log.warning("the draft model is disabled: %s", str(error) or repr(error))
            self.enabled = False
            for own in self._sequences.values():
                own.release(keep=False)
            return [[] for _ in tails]
        return [tail.tokens for tail in tails]

    def doubt(self) -> None:
        self.costs.fade(DOUBT)

    def forget(self, sequence: ScheduledSequence) -> None:
        own = self._sequences.pop(sequence.id, None)
        if own is not None:
            # Texts without drafts bring the mean back, so that drafts are tried again.
            chance = own.chance if own.observed is None else own.observed
            self._chance += WEIGHT * (chance - self._chance)
            own.truncate(min(own.n_known, len(own.tokens)))  # no drafts in the prefix cache
            own.release()

    def check(self) -> None:
        """Raise AssertionError if a cell of the draft model has not exactly one owner."""
        check_cells(self._pool, self._prefix, self._sequences.values())

    def _catch_up(self, tails: list[Tail], worth: Worth) -> list[Tail]:
        """Compute what is not computed of the texts; those whose logits are known then.

        One long text at a time: the next may begin as it does.
        """
        budget = self._max_batch_tokens
        if self._token_ms and not worth.is_alone:
            budget = int(min(budget, max(worth.step_ms / self._token_ms, SMALLEST_CHUNK)))
        ready: list[Tail] = []
        items: list[BatchItem] = []
        computed: list[DraftedSequence] = []
        has_long = False
        for tail in sorted(tails, key=_n_pending):
            own = tail.sequence
            own.refit()
            if own.n_past == own.n_shared and (not own.n_past or own.n_pending >= FEW):
                own.release()  # others may have left a longer part of it since
                own.attach()
            is_long = own.n_pending >= FEW
            if is_long and (has_long or not self._pays(own, worth)):
                continue
            has_long = has_long or is_long
            n = own.chunk(min(own.n_pending, budget))
            n = min(n, self._make_room(n))
            if not n:
                continue
            is_last = n == own.n_pending
            items.append(next_item(own, n, int(is_last)))
            computed.append(own)
            budget -= n
            if is_last:
                ready.append(tail)
        if not items:
            return []
        self._forward(items)
        for own, item in zip(computed, items, strict=True):
            own.advance(len(item.tokens))
            if own.n_shared < own.owner.n_prompt <= own.n_past:
                own.publish()
        return ready

    def _pays(self, own: DraftedSequence, worth: Worth) -> bool:
        """Whether drafts can save what catching up with a text costs."""
        left_ms = (own.owner.n_end - len(own.owner.tokens)) * worth.step_ms
        return own.n_pending * self._token_ms <= GAIN * left_ms

    def _next_round(self, tails: list[Tail]) -> list[Tail]:
        """Compute the last drafted tokens, as far as there are cells."""
        tails = tails[: self._make_room(len(tails))]
        if tails:
            for tail in tails:
                tail.sequence.tokens.append(tail.tokens[-1])
            self._forward([next_item(tail.sequence, 1, 1) for tail in tails])
            for tail in tails:
                tail.sequence.n_past += 1  # may be taken back: so no row of a window is dropped for it
        return tails

    def _make_room(self, n: int) -> int:
        """Up to `n` cells that can be taken now."""
        pool = self._pool
        if n > pool.n_ready:
            self._prefix.evict(n - pool.n_free)
        if n > pool.n_ready:
            for own in self._sequences.values():
                if own.n_past and own.owner.state is not SequenceState.RUNNING:
                    own.release()
            self._prefix.evict(n - pool.n_free)
        return min(n, pool.n_ready)

    def _forward(self, items: list[BatchItem]) -> None:
        started, n_rows = perf_counter(), sum(len(item.tokens) for item in items)
        try:
            self._runner.forward(items)
        except BaseException:
            for own in self._sequences.values():
                own.trim()
            raise
        ms = (perf_counter() - started) * 1e3
        if n_rows < FEW:
            self.costs.measured(n_rows, ms, ms)
        else:
            old, new = self._token_ms, ms / n_rows
            self._token_ms = old + WEIGHT * (new - old) if old else new

    def _guess(self, row: int) -> tuple[int, int]:
        """The likeliest token by the logits of this row, and its class."""
        logits = np.asarray(self._runner.logits(row))[: self._n_vocab]
        token = int(logits.argmax())
        with np.errstate(invalid="ignore"):
            probability = 1 / float(np.exp(logits - logits[token]).sum())
        return token, bisect(BOUNDS, probability)


def _n_pending(tail: Tail) -> int:
    return tail.sequence.n_pending
