"""How many tokens a step drafts for its sequences (speculative decoding), by their chances and measured time.

Drafted tokens are computed in the step of the token before them, each in a row of its own, and are right if
they are what the sampler chooses; so a step may bring several tokens. That pays where another row costs
little: hardly in a full batch, never where drafts are mostly wrong. Both are measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import MAX_DRAFT
from engine.scheduler.sequence import ScheduledSequence

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
            compute_ms = min(compute_ms, OUTLIER * self._first_ms * (1 + (rows - 1) * self.row))
        weights = (1.0, rows, compute_ms, rows * rows, rows * compute_ms)
        n, x, y, xx, xy = (MEMORY * a + b for a, b in zip(self._sums, weights, strict=True))
        self._sums = n, x, y, xx, xy
        spread = n * xx - x * x
        if spread > 0.1 * n * n:  # otherwise the line has no slope to speak of
            per_row = (n * xy - x * y) / spread
            first_ms = y / n - per_row * (x / n - 1)
            self.row = min(max(per_row / max(first_ms, 1e-6), LEAST_ROW_COST), 1.0)
        if rows != self.last_rows:
            switch = min(max(ms - compute_ms, 0.0) / max(self._first_ms, 1e-6), 1.0)
            self.switch += SWITCH_WEIGHT * (switch - self.switch)
            self.last_rows = rows

    @property
    def _first_ms(self) -> float:
        """Of a step of one row."""
        n, x, y, _, _ = self._sums
        return y / n / (1 + (x / n - 1) * self.row)

    def doubt(self) -> None:
        """A promising draft seemed too expensive: it is tried again before long."""
        self.row = max(self.row * DOUBT, LEAST_ROW_COST)


class Drafting:
    """Chooses the drafts of each step."""

    def __init__(self) -> None:
        self.costs = StepCosts()
        self.enabled = True

    def choose(self, sequences: Sequence[ScheduledSequence], room: int) -> list[list[int]]:
        """A draft, often an empty one, for each of the sequences in decode. room: tokens for all of them."""
        chances: list[tuple[float, int]] = []  # of a further drafted token, and whose it is
        for i, sequence in enumerate(sequences):
            if not sequence.drafts:
                continue
            lookup = sequence.lookup
            lookup.extend(sequence.tokens)
            if not lookup.match_length:
                continue
            chance = 1.0
            for k in range(min(sequence.draft_limit, room)):
                chance *= lookup.chance(k)
                chances.append((chance, i))
        chances.sort(key=_chance, reverse=True)  # stable: later tokens of a sequence stay behind
        counts = [0] * len(sequences)
        for _, i in chances[: self._best_number(len(sequences), chances[: min(room, MAX_DRAFT)])]:
            counts[i] += 1
        return [
            sequence.lookup.draft(sequence.tokens, n) if n else []
            for sequence, n in zip(sequences, counts, strict=True)
        ]

    def _best_number(self, n_rows: int, chances: Sequence[tuple[float, int]]) -> int:
        """How many of these tokens, the likeliest first, bring the most tokens for the time."""
        costs, tokens = self.costs, float(n_rows)
        best, best_rate = 0, WORTH * tokens / costs.of(n_rows)
        back = costs.switch if costs.last_rows == n_rows else 0.0  # the step after it has no draft, perhaps
        for n, (chance, _) in enumerate(chances, 1):
            tokens += chance
            rate = tokens / (costs.of(n_rows + n) + back)
            if rate > best_rate:
                best, best_rate = n, rate
        if not best and tokens >= PROMISING * n_rows:
            costs.doubt()
        return best


def _chance(entry: tuple[float, int]) -> float:
    return entry[0]
