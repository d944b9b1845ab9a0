"""Drafts that are right up to a random place and random from there on, and draft models that err."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.cache.window_rows import WindowRows
from engine.config import DRAFT_MODEL
from engine.scheduler.draft_model import ModelDrafter
from engine.scheduler.drafter import Worth
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.sequence import ScheduledSequence
from support.fakes.runner import N_VOCAB, FakeRunner


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


def draft_always(scheduler: Scheduler) -> None:
    """Let a scheduler draft as much as its drafters give, whatever it costs."""
    scheduler.drafting._best_number = (  # type: ignore[method-assign]
        lambda n_rows, candidates: (len(candidates), Worth(0.0, 0.0, math.inf, is_alone=True))
    )
    scheduler.drafting._affords = lambda sequence, drafter, start: True  # type: ignore[method-assign]


class ErringRunner(FakeRunner):
    """A draft model that agrees with the target, except where it errs at random."""

    rng = random.Random(0)
    errs = 0.3

    def logits(self, i: int) -> memoryview:
        row = array("f", super().logits(i))
        if self.rng.random() < self.errs:
            row[self.rng.randrange(N_VOCAB)] += 100
        return memoryview(row)


def draft_by_model(
    scheduler: Scheduler,
    rng: random.Random,
    *,
    n_cells: int = 256,
    n_ctx: int = 64,
    errs: float = 0.3,
    windows: WindowRows | None = None,
) -> tuple[ModelDrafter, ErringRunner]:
    """Let a scheduler draft by a draft model, as much as it may, whatever it costs."""
    n_rows, context = scheduler.config.max_batch_tokens, scheduler._runner.original_context_length
    runner = ErringRunner(n_cells, n_rows, context, windows=windows)
    runner.rng, runner.errs = rng, errs
    pool = CellPool(n_cells, None, windows)
    drafter = ModelDrafter(
        runner, pool, PrefixCache(pool), n_ctx=n_ctx, n_vocab=N_VOCAB, max_batch_tokens=n_rows
    )
    scheduler.drafting.drafters[DRAFT_MODEL] = drafter
    draft_always(scheduler)
    return drafter, runner


def check_drafter(drafter: ModelDrafter, runner: FakeRunner) -> None:
    """Every cell has one owner and holds its token, and the draft model has read no other tokens."""
    drafter.check()
    assert not runner.n_wrong
    for own in drafter._sequences.values():
        held = [content and content[0] for content in (runner.cells[cell] for cell in own.cells)]
        assert held == own.tokens[: own.n_past].tolist()
        if own.n_dropped == own.owner.n_dropped:
            assert own.tokens[: own.n_known] == own.owner.tokens[: own.n_known]
