"""How many tokens a step drafts for its sequences (speculative decoding), by their chances and measured time.

Drafted tokens are computed in the step of the token before them, each in a row of its own, and are right if
they are what the sampler chooses; so a step may bring several tokens. That pays where another row costs
little: hardly in a full batch, never where drafts are mostly wrong. Both are measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from engine.config import MAX_DRAFT, NGRAM
from engine.errors import ConfigError
from engine.scheduler.drafter import Drafter, NgramDrafter, Worth
from engine.scheduler.sequence import ScheduledSequence
from engine.types import Request

FIRST_ROW_COST = 0.1  # of a further row, relative to a step of one row, before anything was measured
LEAST_ROW_COST = 0.02  # however measured: long drafts of little chance are left out
MEMORY = 0.96  # by which old measurements weigh less with each new one
OUTLIER = 3.0  # times the expected time, as which a measurement counts at most: the machine was busy
DOUBT = 0.97  # by which the cost of a row falls with each promising draft that was not tried
PROMISING = 1.5  # times the tokens without, which such a draft is expected to bring
WORTH = 1.03  # times the tokens for the time, below which a draft is left out
SWITCH_WEIGHT = 0.25  # of a new measurement


class StepCosts:
    """What a step takes by its rows: a line through measured times, of which old ones fade.

    row: cost of a further row, relative to a step of one row. switch: that of other rows than in the last
    step, for which a graph must be built.
    """

    __slots__ = ("_sums", "last_rows", "row", "switch")

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # of 1, x, y, x², xy
        self.row = FIRST_ROW_COST
        self.switch = 0.0
        self.last_rows = 0

    def of(self, rows: int) -> float:
        """Relative to a step of one row."""
        cost = 1 + (rows - 1) * self.row
        return cost if rows == self.last_rows else cost + self.switch

    def measured(self, rows: int, compute_ms: float, ms: float) -> None:
        """A step that only decoded took `ms` milliseconds, `compute_ms` of them inside ggml."""
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
        """Of a step of one row; 0: nothing was measured."""
        n, x, y, _, _ = self._sums
        return y / n / (1 + (x / n - 1) * self.row) if n else 0.0

    def doubt(self) -> None:
        """A promising draft seemed too expensive: it is tried again before long."""
        self.row = max(self.row * DOUBT, LEAST_ROW_COST)

    def fade(self, factor: float) -> None:
        """Nothing is measured any more: the next measurement shall say more than those so far.

        factor: by which a step seems to take less time until then, so that it is tried again.
        """
        n, x, y, xx, xy = (MEMORY * a for a in self._sums)
        self._sums = n, x, y * factor, xx, xy * factor


class Drafting:
    """Chooses the drafts of each step. drafters: by the `spec_type` of the requests that draft with them."""

    def __init__(self) -> None:
        self.costs = StepCosts()
        self.enabled = True
        self.drafters: dict[str, Drafter] = {NGRAM: NgramDrafter()}

    def choose(self, sequences: Sequence[ScheduledSequence], room: int) -> list[list[int]]:
        """A draft, often an empty one, for each of the sequences in decode. room: tokens for all of them."""
        candidates: list[Candidate] = []
        for i, sequence in enumerate(sequences):
            if not sequence.drafts:
                continue
            chance = 1.0
            kind, drafter = sequence.request.spec_type, self.drafter(sequence)
            n = max(min(sequence.draft_limit, room), 0)
            chances = drafter.chances(sequence, n)
            is_ready = drafter.is_ready(sequence)
            for k, each in enumerate(chances):
                chance *= each
                candidates.append(Candidate(chance, k, i, kind, is_ready))
        candidates.sort(key=_chance, reverse=True)  # stable: later tokens of a sequence stay behind
        counts = [0] * len(sequences)
        n, worth = self._best_number(len(sequences), candidates[: min(room, MAX_DRAFT)])
        for candidate in candidates[:n]:
            counts[candidate.place] += 1
        drafts: list[list[int]] = [[] for _ in sequences]
        for kind, drafter in self.drafters.items():
            places = [i for i, n in enumerate(counts) if n and sequences[i].request.spec_type == kind]
            if not places:
                continue
            parts = drafter.draft([sequences[i] for i in places], [counts[i] for i in places], worth)
            for i, draft in zip(places, parts, strict=True):
                drafts[i] = draft
        return drafts

    def check(self, request: Request) -> None:
        """ConfigError for a request that drafts with what is not there."""
        if request.draft_max and request.spec_type not in self.drafters:
            known = ", ".join(self.drafters)
            raise ConfigError(f"spec_type is {request.spec_type!r}; this model drafts with {known}")

    def drafter(self, sequence: ScheduledSequence) -> Drafter:
        return self.drafters[sequence.request.spec_type]

    def forget(self, sequence: ScheduledSequence) -> None:
        """The sequence has ended."""
        if sequence.drafts:
            self.drafter(sequence).forget(sequence)

    def _best_number(self, n_rows: int, candidates: Sequence[Candidate]) -> tuple[int, Worth]:
        """How many of these tokens, the likeliest first, bring the most tokens for the time."""
        costs, tokens = self.costs, float(n_rows)
        at_hand = tokens  # with those that can be drafted at once
        best, best_rate = 0, WORTH * tokens / costs.of(n_rows)
        back = costs.switch if costs.last_rows == n_rows else 0.0  # the step after it has no draft, perhaps
        rounds: Counter[str] = Counter()
        drafting = each = 0.0  # time for all drafted tokens, and for each of the best number
        for n, candidate in enumerate(candidates, 1):
            tokens += candidate.chance
            at_hand += candidate.chance * candidate.is_ready
            drafter = self.drafters[candidate.kind]
            is_first = candidate.depth >= rounds[candidate.kind]
            rounds[candidate.kind] += is_first
            drafting += self._relative(drafter.round_ms if is_first else drafter.row_ms)
            rate = tokens / (costs.of(n_rows + n) + drafting + back)
            if rate > best_rate:
                best, best_rate, each = n, rate, drafting / n
        if not best and at_hand >= PROMISING * n_rows:
            costs.doubt()
            for drafter in self.drafters.values():
                drafter.doubt()
        verified = best_rate * costs.row
        return best, Worth(verified, verified + best_rate * each, costs.first_ms, n_rows == 1)

    def _relative(self, ms: float) -> float:
        """To a step of one row."""
        first_ms = self.costs.first_ms
        return ms / first_ms if first_ms else 0.0


class Candidate(NamedTuple):
    """A token that could be drafted. chance: that it and all before it are right. depth: those before it.

    place: of its sequence. kind: of its drafter, which is_ready for it or has to catch up with the text.
    """

    chance: float
    depth: int
    place: int
    kind: str
    is_ready: bool


def _chance(candidate: Candidate) -> float:
    return candidate.chance
