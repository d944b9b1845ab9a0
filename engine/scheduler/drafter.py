"""The interface of sources of drafts, and its implementation by n-gram lookup.

The other implementation, by a draft model, is `engine.scheduler.draft_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engine.scheduler.ngram_lookup import NgramLookup
from engine.scheduler.sequence import ScheduledSequence


class Worth(NamedTuple):
    """What a further token of a draft must have to pay: the chance that it and all tokens before it are
    right.

    verified: the chance above which computing it with the others pays once it is drafted. drafted: the chance
    above which drafting it pays as well. step_ms: time of a step of one row. is_alone: whether no other
    stream waits for the draft.
    """

    verified: float
    drafted: float
    step_ms: float
    is_alone: bool


class Draft(NamedTuple):
    """The next tokens of a sequence, and its part of the time that drafting them took."""

    tokens: list[int]
    ms: float = 0.0


class Drafter(Protocol):
    """Guesses the next tokens of decoding sequences. `engine.scheduler.drafting` decides how many."""

    @property
    def round_ms(self) -> float:
        """Time to draft one more token for one sequence; 0: next to none."""

    @property
    def row_ms(self) -> float:
        """Time to draft one more token for each further sequence in the same round."""

    def chances(self, sequence: ScheduledSequence, n: int, /) -> Sequence[float]:
        """How likely each of the next `n` tokens, or of fewer, will be right if those before it are."""

    def start_ms(self, sequence: ScheduledSequence, /) -> float:
        """Time that it needs before it can draft; `chances` was called in this step."""

    def draft(
        self, sequences: Sequence[ScheduledSequence], counts: Sequence[int], worth: Worth, /
    ) -> list[Draft]:
        """The next tokens of each sequence, at most this many. `chances` was called for each in this step."""

    def doubt(self) -> None:
        """Promising drafts seemed too expensive, so the measurements may be outdated."""

    def forget(self, sequence: ScheduledSequence, /) -> None:
        """The sequence has ended."""


class NgramDrafter:
    """Drafts the tokens that followed an earlier occurrence of the last ones, see `NgramLookup`."""

    round_ms = row_ms = 0.0

    def __init__(self) -> None:
        self._lookups: dict[str, tuple[int, NgramLookup]] = {}  # by id, with the tokens that gave way by then

    def chances(self, sequence: ScheduledSequence, n: int) -> Sequence[float]:
        lookup = self.lookup(sequence)
        lookup.extend(sequence.tokens)
        return [lookup.chance(k) for k in range(n)] if lookup.match_length else ()

    def start_ms(self, sequence: ScheduledSequence) -> float:
        return 0.0

    def draft(
        self, sequences: Sequence[ScheduledSequence], counts: Sequence[int], worth: Worth
    ) -> list[Draft]:
        pairs = zip(sequences, counts, strict=True)
        return [Draft(self.lookup(sequence).draft(sequence.tokens, n) if n else []) for sequence, n in pairs]

    def doubt(self) -> None:
        """Does nothing: nothing was measured."""

    def forget(self, sequence: ScheduledSequence) -> None:
        self._lookups.pop(sequence.id, None)

    def lookup(self, sequence: ScheduledSequence) -> NgramLookup:
        """The sequence's lookup, created when it decodes, since many sequences may wait."""
        n_dropped, lookup = self._lookups.get(sequence.id, (-1, None))
        if lookup is None or n_dropped != sequence.n_dropped:
            lookup = NgramLookup(len(sequence.tokens), sequence.n_end)
            self._lookups[sequence.id] = sequence.n_dropped, lookup
        return lookup
