"""What sequences take of the cache besides cells."""

from __future__ import annotations

from array import array

from engine.cache.cell_pool import CellPool
from engine.cache.window_rows import WindowRows


def test_cells_without_rows_are_not_ready() -> None:
    windows = WindowRows(4, 3, 8, interval=512)
    pool = CellPool(8, windows=windows)
    cells = pool.alloc(3)
    windows.take(cells)
    assert (pool.n_free, pool.n_ready) == (5, 1)
    assert pool.lacks_rows(2)
    assert not pool.lacks(1)
    rows = pool.rows_of(cells)
    windows.drop(cells[:1])
    pool.free(cells[:1])
    assert pool.freed(cells, rows) == ([cells[0]], [rows[0]])


def test_a_pool_without_windows_lacks_no_rows() -> None:
    pool = CellPool(8)
    assert not pool.has_checkpoints
    assert not pool.lacks(100)
    assert pool.rows_of(array("i", [0, 1])) == []
    assert pool.n_ready == 8
