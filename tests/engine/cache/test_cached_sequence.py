"""Which cells one sequence owns, shares and gives back."""

from __future__ import annotations

from array import array

import pytest

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache

N_CELLS = 64


@pytest.fixture
def pool() -> CellPool:
    return CellPool(N_CELLS)


@pytest.fixture
def prefix(pool: CellPool) -> PrefixCache:
    return PrefixCache(pool)


def computed(
    pool: CellPool, prefix: PrefixCache | None, tokens: list[int], *, original_context_length: int = 0
) -> CachedSequence:
    """A sequence whose tokens are all computed."""
    sequence = CachedSequence(pool, prefix, tokens, original_context_length=original_context_length)
    sequence.attach()
    sequence.grow(sequence.n_pending)
    sequence.n_past = len(tokens)
    return sequence


def test_attach_leaves_the_last_token_to_be_computed(pool: CellPool, prefix: PrefixCache) -> None:
    computed(pool, prefix, [1, 2, 3]).release()
    again = CachedSequence(pool, prefix, [1, 2, 3])
    assert again.attach() == 2
    assert (again.n_past, again.n_shared, again.n_pending) == (2, 2, 1)
    shorter = CachedSequence(pool, prefix, [1, 2, 3])
    assert shorter.attach(limit=1) == 1


def test_attach_without_a_prefix_cache_shares_nothing(pool: CellPool, prefix: PrefixCache) -> None:
    computed(pool, prefix, [1, 2, 3]).release()
    alone = computed(pool, None, [1, 2, 3])
    assert alone.n_shared == 0
    free = pool.n_free
    alone.release()
    assert pool.n_free == free + 3


def test_trim_frees_cells_whose_tokens_were_not_computed(pool: CellPool) -> None:
    sequence = CachedSequence(pool, None, [1, 2, 3])
    sequence.grow(3)
    sequence.n_past = 1
    sequence.trim()
    assert (len(sequence.cells), pool.n_free) == (1, N_CELLS - 1)


def test_publish_shares_what_is_computed_with_others(pool: CellPool, prefix: PrefixCache) -> None:
    first = computed(pool, prefix, [1, 2, 3])
    first.publish()
    assert first.n_shared == 3
    other = CachedSequence(pool, prefix, [1, 2, 4])
    assert other.attach() == 2
    assert other.cells == first.cells[:2]


@pytest.mark.parametrize("published", [False, True])
def test_truncate_frees_the_cells_behind_and_the_sequence_can_continue_differently(
    pool: CellPool, prefix: PrefixCache, published: bool
) -> None:
    sequence = computed(pool, prefix, [1, 2, 3, 4])
    if published:
        sequence.publish()
    sequence.truncate(2)
    assert (sequence.tokens, sequence.n_past, len(sequence.cells)) == (array("i", [1, 2]), 2, 2)
    sequence.tokens.extend([7, 8])
    sequence.grow(2)
    sequence.n_past = 4
    sequence.release()
    prefix.check()
    assert CachedSequence(pool, prefix, [1, 2, 7, 8, 9]).attach() == 4


def test_release_without_keep_forgets_published_cells(pool: CellPool, prefix: PrefixCache) -> None:
    sequence = computed(pool, prefix, [1, 2, 3])
    sequence.publish()
    sequence.release(keep=False)
    assert CachedSequence(pool, prefix, [1, 2, 3]).attach() == 0
    assert pool.n_free == N_CELLS
    assert (sequence.n_past, sequence.n_shared, sequence.node) == (0, 0, None)


def test_refit_recomputes_a_sequence_that_outgrew_its_rotary_factors(
    pool: CellPool, prefix: PrefixCache
) -> None:
    sequence = computed(pool, prefix, [1, 2, 3], original_context_length=3)
    sequence.refit()
    assert (sequence.n_past, sequence.uses_long_rope) == (3, False)
    sequence.tokens.append(4)
    assert sequence.needs_long_rope
    sequence.refit()
    assert (sequence.n_past, len(sequence.cells)) == (0, 0)
    assert sequence.attach() == 0  # what was computed with the short factors is no prefix of it
    assert sequence.uses_long_rope


def test_boundaries_far_enough_from_what_is_known_and_from_each_other_become_stops(
    pool: CellPool, prefix: PrefixCache
) -> None:
    computed(pool, prefix, list(range(10))).release()
    sequence = CachedSequence(pool, prefix, range(60))
    sequence.boundaries = [50, 41, 42, 59]
    assert sequence.attach() == 10
    assert sequence.stops == {42}
    sequence.release()
    sequence.shift(60, 50, 4, 0)  # they were lengths of the whole text
    sequence.attach()
    assert sequence.stops == set()
