"""Drafts that are right up to a random place, and tokens at random from there on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from engine.scheduler.scheduler import Scheduler
from engine.scheduler.sequence import ScheduledSequence


def draft_at_random(
    scheduler: Scheduler, rng: random.Random, expected: Callable[[str], Sequence[int]], n_vocab: int
) -> None:
    """Let a scheduler draft so, whatever it would cost. expected: what a request will generate, by its id."""

    def choose(sequences: Sequence[ScheduledSequence], room: int) -> list[list[int]]:
        drafts = []
        for sequence in sequences:
            n = rng.randint(0, max(min(room, sequence.draft_limit), 0))
            room -= n
            right = expected(sequence.id)[sequence.n_generated :][: rng.randint(0, n)]
            drafts.append([*right, *(rng.randrange(n_vocab) for _ in range(n - len(right)))])
        return drafts

    scheduler._builder.drafting.choose = choose  # type: ignore[method-assign]
