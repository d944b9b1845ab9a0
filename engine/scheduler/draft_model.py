"""Drafts by a draft model: a smaller model with the same vocabulary, which computes each text as well.

It drafts the most likely token by its own logits, round by round, for all sequences together. It has its own
cells and prefix cache: each of its sequences follows a sequence of the target, and goes back when a draft was
wrong. Nothing that it computes reaches a text, so none of it needs to be exact.
"""

from __future__ import annotations

import logging
from bisect import bisect
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.errors import DeviceError, OutOfMemoryError
from engine.scheduler.admission import check_cells
from engine.scheduler.batch import BatchItem, BatchRunner, next_item
from engine.scheduler.drafter import Draft, Worth
from engine.scheduler.drafting import StepCosts
from engine.scheduler.sequence import ScheduledSequence, SequenceState

log = logging.getLogger("engine")

BOUNDS = (0.3, 0.5, 0.7, 0.85, 0.95)  # between the classes of a drafted token, by the draft's probability
# How likely a token of each class is right, before anything is known of the text.
FIRST_CHANCES = (0.15, 0.4, 0.6, 0.75, 0.9, 0.97)
FIRST_WEIGHT = 4  # observations that this counts for
LAST_WEIGHT = 32  # observations after which old ones are forgotten
FIRST_CHANCE = 0.7  # of a token that is not drafted yet
RECOVERY = 1 / 64  # by which a text's chance returns to that with each token that was not drafted
DOUBT = 0.99  # see `StepCosts.fade`
FEW = 32  # rows of a batch from which on it is not the next token of a text, but the text up to there
SMALLEST_CHUNK = 16  # tokens of a text with which the model catches up, however long they take
WEIGHT = 0.25  # of a new measurement


class DraftedSequence(CachedSequence):
    """What the draft model has computed of a sequence, possibly followed by tokens that it drafted.

    n_known: tokens of the sequence when it was last looked at. n_dropped: its own. guesses: the tokens that
    were drafted then, and their classes. chance: that the next drafted token is right. is_foreign: it has
    tokens that the draft model does not know.
    """

    __slots__ = (
        "_chances",
        "_n_published",
        "_weight",
        "_weights",
        "chance",
        "guesses",
        "is_foreign",
        "n_dropped",
        "n_known",
        "owner",
    )

    def __init__(self, owner: ScheduledSequence, pool: CellPool, prefix: PrefixCache, context: int) -> None:
        """context: the model's `original_context_length`."""
        shared = prefix if owner.prefix is not None else None
        super().__init__(pool, shared, original_context_length=context, salt=owner.salt)
        self.owner, self.n_dropped, self.n_known = owner, owner.n_dropped, len(owner.tokens)
        self.boundaries = owner.boundaries
        self.guesses: list[tuple[int, int]] = []
        self.chance = FIRST_CHANCE
        self._weight, self.is_foreign = FIRST_WEIGHT, False
        self._chances = list(FIRST_CHANCES)
        self._weights = [FIRST_WEIGHT] * len(FIRST_CHANCES)
        self._n_published = -1

    def follow(self, n_vocab: int) -> None:
        """Take over new tokens, go back behind a wrong draft, and learn from it."""
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
        self.refit()

    def share(self, n_published: int) -> None:
        """Begin with what other texts have left of this one, if that may have grown.

        n_published: times that any text left something.
        """
        may_grow = self.n_past == self.n_shared and (not self.n_past or self.n_pending >= FEW)
        if may_grow and self._n_published != n_published:
            self.release()
            self.attach()
            self._n_published = n_published

    def release(self, *, keep: bool = True) -> None:
        super().release(keep=keep)
        self._n_published = -1

    def chance_of(self, kind: int) -> float:
        """The chance that a drafted token of this class is right."""
        return self._chances[kind]

    def _learn(self) -> None:
        """Learn from the guesses up to the first wrong one, including those that were not worth a row."""
        tokens = self.owner.tokens
        if not self.guesses:
            self.chance += RECOVERY * (len(tokens) - self.n_known) * (FIRST_CHANCE - self.chance)
            return
        for (token, kind), right in zip(self.guesses, tokens[self.n_known :], strict=False):
            is_right = token == right
            weight = self._weights[kind] = min(self._weights[kind] + 1, LAST_WEIGHT)
            self._chances[kind] += (is_right - self._chances[kind]) / weight
            self._weight = min(self._weight + 1, LAST_WEIGHT)
            self.chance += (is_right - self.chance) / self._weight
            if not is_right:
                break
        self.guesses = []


class Tail:
    """The draft of one sequence while it grows: its tokens, the chance that all are right, and its time."""

    __slots__ = ("chance", "left", "ms", "sequence", "tokens")

    def __init__(self, sequence: DraftedSequence, left: int) -> None:
        self.sequence, self.left = sequence, left
        self.tokens: list[int] = []
        self.chance, self.ms = 1.0, 0.0

    def add(self, token: int, kind: int, worth: Worth) -> bool:
        """Add the next token. Returns whether another one is worth drafting."""
        sequence = self.sequence
        sequence.guesses.append((token, kind))
        self.chance *= sequence.chance_of(kind)
        if self.chance < worth.verified:
            return False
        self.tokens.append(token)
        self.left -= 1
        return self.left > 0 and self.chance * sequence.chance >= worth.drafted


class ModelDrafter:
    """Drafts for sequences of another model, of which it only knows the tokens."""

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

        n_ctx: its maximum context length. n_vocab: tokens that both models have.
        """
        self._runner, self._pool, self._prefix = runner, pool, prefix
        self._n_ctx, self._n_vocab, self._max_batch_tokens = n_ctx, n_vocab, max_batch_tokens
        self._sequences: dict[str, DraftedSequence] = {}
        self._token_ms = 0.0  # of a text with which it catches up
        self._n_published = 0
        self._warm: set[bool] = set()  # whether long batches were computed, or short ones
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
            own = DraftedSequence(sequence, self._pool, self._prefix, context)
            self._sequences[sequence.id] = own
        own.follow(self._n_vocab)
        own.share(self._n_published)
        n = 0 if own.is_foreign else min(n, self._n_ctx - len(own.tokens))
        return [own.chance] * n

    def start_ms(self, sequence: ScheduledSequence) -> float:
        own = self._sequences.get(sequence.id)
        return 0.0 if own is None else self._batch_ms(own.n_pending) - self.round_ms

    def draft(
        self, sequences: Sequence[ScheduledSequence], counts: Sequence[int], worth: Worth
    ) -> list[Draft]:
        pairs = zip(sequences, counts, strict=True)
        tails = [Tail(self._sequences[sequence.id], n) for sequence, n in pairs]
        try:
            live = self._catch_up(tails, worth)
            while live:
                live = self._next_round([tail for tail, guess in live if tail.add(*guess, worth)])
        except Exception as error:
            if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
                raise
            log.warning("the draft model is disabled: %s", str(error) or repr(error))
            self.enabled = False
            for own in self._sequences.values():
                own.release(keep=False)
            return [Draft([]) for _ in tails]
        return [Draft(tail.tokens, tail.ms) for tail in tails]

    def doubt(self) -> None:
        self.costs.fade(DOUBT)

    def forget(self, sequence: ScheduledSequence) -> None:
        own = self._sequences.pop(sequence.id, None)
        if own is not None:
            own.truncate(min(own.n_known, len(own.tokens)))  # no drafts in the prefix cache
            own.release()
            self._n_published += 1

    def check(self) -> None:
        """Raises AssertionError unless each cell of the draft model has exactly one owner."""
        check_cells(self._pool, self._prefix, self._sequences.values())

    def _catch_up(self, tails: list[Tail], worth: Worth) -> list[Guessed]:
        """Compute the missing tokens of the texts. Returns guesses for those whose logits are known then.

        One long text at a time: the next may begin with the same prefix.
        """
        budget = self._max_batch_tokens
        if self._token_ms and not worth.is_alone:
            budget = int(min(budget, max(worth.step_ms / self._token_ms, SMALLEST_CHUNK)))
        items: list[BatchItem] = []
        computed: list[Tail] = []
        has_long = False
        for tail in sorted(tails, key=_n_pending):
            own = tail.sequence
            is_long = own.n_pending >= FEW
            if is_long and has_long:
                continue
            has_long = has_long or is_long
            n = own.chunk(min(own.n_pending, budget))
            n = min(n, self._make_room(n))
            if not n:
                continue
            items.append(next_item(own, n, int(n == own.n_pending)))
            computed.append(tail)
            budget -= n
        guessed = self._forward(computed, items)
        for tail, item in zip(computed, items, strict=True):
            own = tail.sequence
            own.advance(len(item.tokens))
            if own.n_shared < own.owner.n_prompt <= own.n_past:
                own.publish()
                self._n_published += 1
        return guessed

    def _next_round(self, tails: list[Tail]) -> list[Guessed]:
        """Compute the last drafted tokens, as far as there are cells."""
        tails = tails[: self._make_room(len(tails))]
        for tail in tails:
            tail.sequence.tokens.append(tail.tokens[-1])
        guessed = self._forward(tails, [next_item(tail.sequence, 1, 1) for tail in tails])
        for tail in tails:
            tail.sequence.n_past += 1  # may be taken back: so no row of a window is dropped for it
        return guessed

    def _make_room(self, n: int) -> int:
        """Free up to `n` cells. Returns the number that can be taken now."""
        pool = self._pool
        if n > pool.n_ready:
            self._prefix.evict(n - pool.n_free)
        if n > pool.n_ready:
            for own in self._sequences.values():
                if own.n_past and own.owner.state is not SequenceState.RUNNING:
                    own.release()
            self._prefix.evict(n - pool.n_free)
        return min(n, pool.n_ready)

    def _forward(self, tails: list[Tail], items: list[BatchItem]) -> list[Guessed]:
        """Compute the next tokens of each; what follows those that have logits."""
        if not items:
            return []
        started, n_rows = perf_counter(), sum(len(item.tokens) for item in items)
        try:
            self._runner.forward(items)
        except BaseException:
            for own in self._sequences.values():
                own.trim()
            raise
        live = [tail for tail, item in zip(tails, items, strict=True) if item.logits]
        guessed = [Guessed(tail, self._guess(row)) for row, tail in enumerate(live)]
        self._measured(n_rows, (perf_counter() - started) * 1e3)
        row_ms = self._batch_ms(n_rows) / n_rows
        for tail, item in zip(tails, items, strict=True):
            tail.ms += row_ms * len(item.tokens)
        return guessed

    def _batch_ms(self, n_rows: int) -> float:
        """What a batch of so many rows takes, by what was measured."""
        if n_rows >= FEW and self._token_ms:
            return self._token_ms * n_rows
        return self.costs.first_ms * self.costs.steady(n_rows)

    def _measured(self, n_rows: int, ms: float) -> None:
        """A batch of `n_rows` took `ms`. The first of its kind says little: buffers and kernels are new."""
        is_long = n_rows >= FEW
        if is_long not in self._warm:
            self._warm.add(is_long)
        elif not is_long:
            self.costs.measured(n_rows, ms, ms)
        else:
            old, new = self._token_ms, ms / n_rows
            self._token_ms = old + WEIGHT * (new - old) if old else new

    def _guess(self, row: int) -> tuple[int, int]:
        """The most likely token by the logits of this row, and its class."""
        logits = np.asarray(self._runner.logits(row))[: self._n_vocab]
        token = int(logits.argmax())
        with np.errstate(invalid="ignore"):
            probability = 1 / float(np.exp(logits - logits[token]).sum())
        return token, bisect(BOUNDS, probability)


class Guessed(NamedTuple):
    """A draft and the token that would come next, with its class."""

    tail: Tail
    guess: tuple[int, int]


def _n_pending(tail: Tail) -> int:
    return tail.sequence.n_pending
