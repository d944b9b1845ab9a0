"""Cells are handed out in long ascending runs, each to one owner."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.cell_allocator import BLOCK, CellAllocator
from engine.errors import OutOfMemoryError
from support.quick import examples


def test_a_small_pool_hands_out_the_lowest_cells_in_order() -> None:
    pool = CellAllocator(10)
    assert pool.alloc(4).tolist() == [0, 1, 2, 3]
    assert pool.alloc_one() == 4
    pool.free([1, 2])
    assert pool.alloc(4).tolist() == [1, 2, 5, 6]
    assert pool.n_free == 3
    pool.check()


def test_a_sequence_continues_behind_its_last_cell() -> None:
    pool = CellAllocator(10)
    pool.alloc(6)
    pool.free([1, 3, 4])
    assert pool.alloc_one(after=2) == 3
    assert pool.alloc(3, after=5).tolist() == [6, 7, 8]
    assert pool.alloc(2, after=8).tolist() == [9, 1]
    assert pool.alloc_one(after=9) == 4  # behind the last cell of the pool there is none
    assert pool.n_free == 0


def test_sequences_that_grow_side_by_side_do_not_interleave() -> None:
    pool = CellAllocator(4 * BLOCK)
    tables = [array("i"), array("i"), array("i")]
    for _ in range(BLOCK):
        for table in tables:
            table.append(pool.alloc_one(table[-1] if table else -1))
    assert [table.tolist() for table in tables] == [
        list(range(i * BLOCK, (i + 1) * BLOCK)) for i in range(len(tables))
    ]


def test_without_a_free_block_the_lowest_cells_are_used() -> None:
    pool = CellAllocator(2 * BLOCK)
    first, second = pool.alloc_one(), pool.alloc_one()
    assert (first, second) == (0, BLOCK)
    assert pool.alloc_one() == 1
    assert pool.alloc(2 * BLOCK - 3).tolist() == [i for i in range(2 * BLOCK) if i not in (0, 1, BLOCK)]


def test_a_long_prompt_takes_whole_blocks_before_scattered_cells() -> None:
    pool = CellAllocator(4 * BLOCK)
    pool.alloc(4 * BLOCK)
    pool.free([3, 5, *range(2 * BLOCK, 4 * BLOCK)])
    assert pool.alloc(2 * BLOCK + 1).tolist() == [*range(2 * BLOCK, 4 * BLOCK), 3]


def test_alloc_from_an_exhausted_pool_raises_out_of_memory() -> None:
    pool = CellAllocator(4)
    pool.alloc(3)
    with pytest.raises(OutOfMemoryError, match="1 of 4 cells free, 2 are needed"):
        pool.alloc(2)
    pool.alloc_one()
    with pytest.raises(OutOfMemoryError, match="0 of 4 cells free, 1 are needed"):
        pool.alloc_one()


def test_free_of_a_free_cell_is_an_error() -> None:
    pool = CellAllocator(100)
    cells = pool.alloc(50)
    pool.free(cells[10:20])
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free(cells[5:15])


@examples(60)
@given(
    st.integers(1, 5 * BLOCK),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3 * BLOCK), st.integers(0, 1000)), max_size=30),
)
def test_each_cell_has_one_owner(n_cells: int, script: list[tuple[bool, int, int]]) -> None:
    pool = CellAllocator(n_cells)
    held: list[int] = []
    for take, n, at in script:
        if take:
            n = min(n, pool.n_free)
            after = held[at % len(held)] if held else -1
            cells = [pool.alloc_one(after)] if n == 1 else pool.alloc(n, after).tolist()
            assert len(cells) == n
            held += cells
        else:
            start = at % (len(held) + 1)
            pool.free(held[start : start + n])
            del held[start : start + n]
        assert len(set(held)) == len(held) == n_cells - pool.n_free
        assert [pool.is_free(cell) for cell in range(n_cells)] == [
            cell not in held for cell in range(n_cells)
        ]
        pool.check()
