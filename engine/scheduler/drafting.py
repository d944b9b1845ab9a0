"""How many tokens a step drafts for its sequences (speculative decoding), by their chances and by measured
time.

Drafted tokens are computed in the step of the token before them, each in its own row, and are right if they
are what the sampler chooses; so a step may produce several tokens. That pays if another row costs little:
hardly in a full batch, and never if drafts are mostly wrong. Both are measured. Drafts that take time of
their own also have a `DraftCredit`, which bounds what wrong guesses about all this may lose.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from engine.config import MAX_DRAFT, NGRAM
from engine.errors import ConfigError
from engine.scheduler.drafter import Draft, Drafter, NgramDrafter, Worth
from engine.scheduler.sequence import ScheduledSequence
from engine.types import Request

FIRST_ROW_COST = 0.1  # of a further row, relative to a step of one row, before anything was measured
LEAST_ROW_COST = 0.02  # however measured: long drafts of little chance are left out
MEMORY = 0.96  # by which old measurements weigh less with each new one
OUTLIER = 3.0  # times the expected time, as which a measurement counts at most: the machine was busy
DOUBT = 0.97  # by which the cost of a row falls with each promising draft that was not tried
PROMISING = 1.5  # times the tokens without, which such a draft is expected to bring
LITTLE = 1.0  # steps that a drafter needs to begin, below which it can draft at once
WORTH = 1.03  # times the tokens for the time, below which a draft is left out
SWITCH_WEIGHT = 0.25  # of a new measurement
LOSS = 0.01  # of the time of the texts, which drafts may lose in the long run
TRIAL = 12.0  # steps that drafts may lose at first
TEXT_TRIAL = 3.0  # steps that they may lose in one text, once its prompt is computed
MOST_STEPS = 64.0  # of those that right drafts saved, may be lost again: prompts of later texts cost so much
GAIN = 0.2  # of the rest of a text, which drafts may save: no more is spent on catching up with it


class StepCosts:
    """The time of a step by its number of rows: a line through measured times, of which old ones fade.

    row: cost of a further row, relative to a step of one row. switch: cost of another number of rows than in
    the last step, for which a graph must be built.
    """

    __slots__ = ("_sums", "last_rows", "row", "switch")

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # of 1, x, y, x², xy
        self.row = FIRST_ROW_COST
        self.switch = 0.0
        self.last_rows = 0

    def of(self, rows: int) -> float:
        """Relative to a step of one row."""
        cost = self.steady(rows)
        return cost if rows == self.last_rows else cost + self.switch

    def steady(self, rows: int) -> float:
        """The same of a step after others of as many rows."""
        return 1 + (rows - 1) * self.row

    def measured(self, rows: int, compute_ms: float, ms: float) -> None:
        """Record that a decode-only step took `ms` milliseconds, `compute_ms` of them inside ggml."""
        n, x, y, xx, xy = self._sums
        if n:
            compute_ms = min(compute_ms, OUTLIER * self.first_ms * (1 + (rows - 1) * self.row))
        weights = (1.0, rows, compute_ms, rows * rows, rows * compute_ms)
        n, x, y, xx, xy = (MEMORY * a + b for a, b in zip(self._sums, weights, strict=True))
        self._sums = n, x, y, xx, xy
        spread = n * xx - x * x
        if spread > 0.1 * n * n:  # otherwise the line has no slope to speak of
            per_row = (n * xy - x * y) / spread
            first_ms = y / n - per_row * (x / n - 1)
            self.row = min(max(per_row / max(first_ms, 1e-6), LEAST_ROW_COST), 1.0)
        if rows != self.last_rows:
            switch = min(max(ms - compute_ms, 0.0) / max(self.first_ms, 1e-6), 1.0)
            self.switch += SWITCH_WEIGHT * (switch - self.switch)
            self.last_rows = rows

    @property
    def first_ms(self) -> float:
        """Time of a step of one row; 0: nothing was measured."""
        n, x, y, _, _ = self._sums
        return y / n / (1 + (x / n - 1) * self.row) if n else 0.0

    def doubt(self) -> None:
        """A promising draft seemed too expensive: it will soon be tried again."""
        self.row = max(self.row * DOUBT, LEAST_ROW_COST)

    def fade(self, factor: float) -> None:
        """Nothing is being measured: give the next measurement more weight than the previous ones.

        factor: by which a step seems faster until then, so that it is tried again.
        """
        n, x, y, xx, xy = (MEMORY * a for a in self._sums)
        self._sums = n, x, y * factor, xx, xy * factor


class DraftCredit:
    """An account of what drafts save and cost, in steps: the unit is the time of a step of one row.

    steps: what they may lose now. `ScheduledSequence.draft_credit`: the same in one text, from its first
    draft on.
    """

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = TRIAL

    def allows(self, sequence: ScheduledSequence, start: float, first: float, rest: float) -> bool:
        """Whether a draft may be tried.

        start: steps to catch up with the text. first: to draft a token then. rest: to the end of the text.
        """
        own = sequence.draft_credit
        return start + first <= (self.steps if own is None else min(own, self.steps)) and start <= GAIN * rest

    def add(self, sequence: ScheduledSequence, steps: float) -> None:
        """Drafts of a text have saved `steps`, or cost them if that is negative."""
        self.steps = min(self.steps + steps, MOST_STEPS)
        if sequence.draft_credit is not None:
            sequence.draft_credit = min(sequence.draft_credit + steps, MOST_STEPS)

    def pass_time(self, sequence: ScheduledSequence, steps: float) -> None:
        """A text goes on for `steps`."""
        self.steps = max(self.steps, min(self.steps + LOSS * steps, TRIAL))
        own = sequence.draft_credit
        if own is not None:
            sequence.draft_credit = max(own, min(own + LOSS * steps, TEXT_TRIAL))


class Drafting:
    """Chooses the drafts of each step. drafters: by the `spec_type` of the requests that draft with them."""

    def __init__(self) -> None:
        self.costs = StepCosts()
        self.enabled = True
        self.drafters: dict[str, Drafter] = {NGRAM: NgramDrafter()}
        self.credit = DraftCredit()
        self._per_token = 1.0  # steps for a token of each sequence, without drafts

    def choose(self, sequences: Sequence[ScheduledSequence], room: int) -> list[list[int]]:
        """A draft, often empty, for each of the decoding sequences. room: tokens for all of them together."""
        self._per_token = self.costs.steady(len(sequences)) / max(len(sequences), 1)
        candidates, at_hand = self._candidates(sequences, room)
        counts = [0] * len(sequences)
        n, worth = self._best_number(len(sequences), candidates[: min(room, MAX_DRAFT)])
        if not n and at_hand >= PROMISING * len(sequences):
            self.costs.doubt()
            for drafter in self.drafters.values():
                drafter.doubt()
        for candidate in candidates[:n]:
            counts[candidate.place] += 1
        drafts: list[list[int]] = [[] for _ in sequences]
        for kind, drafter in self.drafters.items():
            places = [i for i, n in enumerate(counts) if n and sequences[i].request.spec_type == kind]
            if not places:
                continue
            drafting = [sequences[i] for i in places]
            parts = drafter.draft(drafting, [counts[i] for i in places], worth)
            if drafter.round_ms:
                self._charge(drafter, drafting, parts, len(sequences))
            for i, draft in zip(places, parts, strict=True):
                drafts[i] = draft.tokens
        return drafts

    def verified(self, sequence: ScheduledSequence, n: int, n_right: int) -> None:
        """Of `n` drafted tokens, perhaps none, so many were right."""
        sequence.draft_n += n
        sequence.draft_accepted += n_right
        if n and self.drafter(sequence).round_ms:
            self.credit.add(sequence, n_right * self._per_token)

    def check(self, request: Request) -> None:
        """Raises ConfigError for a request whose source of drafts is not available."""
        if request.draft_max and request.spec_type not in self.drafters:
            known = ", ".join(self.drafters)
            raise ConfigError(f"spec_type is {request.spec_type!r}; this model drafts with {known}")

    def drafter(self, sequence: ScheduledSequence) -> Drafter:
        return self.drafters[sequence.request.spec_type]

    def forget(self, sequence: ScheduledSequence) -> None:
        """The sequence has ended."""
        if sequence.drafts:
            self.drafter(sequence).forget(sequence)

    def _candidates(self, sequences: Sequence[ScheduledSequence], room: int) -> tuple[list[Candidate], float]:
        """What may be drafted, the likeliest first, and the tokens of a step with all that can be at once."""
        candidates: list[Candidate] = []
        at_hand = float(len(sequences))
        for i, sequence in enumerate(sequences):
            if not sequence.drafts:
                continue
            kind, drafter = sequence.request.spec_type, self.drafter(sequence)
            chances = drafter.chances(sequence, max(min(sequence.draft_limit, room), 0))
            start = self._relative(drafter.start_ms(sequence))
            if not chances or not self._affords(sequence, drafter, start):
                continue
            chance = 1.0
            for k, each in enumerate(chances):
                chance *= each
                if start < LITTLE:
                    at_hand += chance
                candidates.append(Candidate(chance, k, i, kind))
        candidates.sort(key=_chance, reverse=True)  # stable: later tokens of a sequence stay behind
        return candidates, at_hand

    def _affords(self, sequence: ScheduledSequence, drafter: Drafter, start: float) -> bool:
        """Whether the sequence may be drafted for, if that is expected to pay. start: steps to begin with."""
        if not drafter.round_ms:
            return True
        self.credit.pass_time(sequence, self._per_token)
        rest = (sequence.n_end - len(sequence.tokens)) * self._per_token
        return self.credit.allows(sequence, start, self._relative(drafter.round_ms), rest)

    def _charge(
        self, drafter: Drafter, sequences: Sequence[ScheduledSequence], drafts: Sequence[Draft], n_rows: int
    ) -> None:
        """Charge the drafts of sequences, in a step of `n_rows` rows without them."""
        n = sum(len(draft.tokens) for draft in drafts)
        per_row = max(self.costs.of(n_rows + n) - self.costs.of(n_rows), 0.0) / max(n, 1)
        for sequence, draft in zip(sequences, drafts, strict=True):
            self.credit.add(sequence, -self._relative(draft.ms) - per_row * len(draft.tokens))
            if sequence.draft_credit is None and self._relative(drafter.start_ms(sequence)) < LITTLE:
                sequence.draft_credit = TEXT_TRIAL

    def _best_number(self, n_rows: int, candidates: Sequence[Candidate]) -> tuple[int, Worth]:
        """How many of these tokens, the most likely first, yield the most tokens for the time."""
        costs, tokens = self.costs, float(n_rows)
        best, best_rate = 0, WORTH * tokens / costs.of(n_rows)
        back = costs.switch if costs.last_rows == n_rows else 0.0  # the step after it has no draft, perhaps
        first_ms = costs.first_ms or math.inf  # before anything was measured drafting takes no time
        rounds: Counter[str] = Counter()
        drafting = each = 0.0  # time for all drafted tokens, and for each of the best number
        least = costs.row * tokens / costs.steady(n_rows)
        for n, candidate in enumerate(candidates, 1):
            if candidate.chance < least:  # a row for it cannot pay, nor for those behind it
                break
            tokens += candidate.chance
            drafter = self.drafters[candidate.kind]
            is_first = candidate.depth >= rounds[candidate.kind]
            rounds[candidate.kind] += is_first
            drafting += (drafter.round_ms if is_first else drafter.row_ms) / first_ms
            rate = tokens / (costs.of(n_rows + n) + drafting + back)
            if rate > best_rate:
                best, best_rate, each = n, rate, drafting / n
        verified = best_rate * costs.row
        return best, Worth(verified, verified + best_rate * each, costs.first_ms, n_rows == 1)

    def _relative(self, ms: float) -> float:
        """Time relative to a step of one row."""
        first_ms = self.costs.first_ms
        return ms / first_ms if first_ms else 0.0


class Candidate(NamedTuple):
    """A token that could be drafted. chance: that it and all before it are right. depth: those before it.

    place: of its sequence. kind: of its drafter.
    """

    chance: float
    depth: int
    place: int
    kind: str


def _chance(candidate: Candidate) -> float:
    return candidate.chance
