"""Rows of layers with a window: who holds them, where a sequence can go on, and what gives way."""

from __future__ import annotations

from array import array

import pytest

from engine.cache.window_rows import HeldRows, WindowRows
from engine.errors import OutOfMemoryError

CELLS = array("i", range(20))


def rows(n_rows: int = 12, window: int = 4) -> WindowRows:
    return WindowRows(n_rows, window, 20, interval=512, slack=2)


def test_sequence_drops_rows_that_its_next_tokens_do_not_read() -> None:
    windows = rows()
    held = HeldRows(windows)
    for n in range(1, 10):
        held.extend(CELLS[:n])
        held.advance(CELLS[:n], n)
        assert min(n, 3) <= held.end - held.first <= windows.most_held
        assert held.can_resume(n)
        assert windows.n_resumable(CELLS[:n]) == n
    assert windows.n_resumable(CELLS[:6]) == 0
    held.cut(CELLS, 0)
    assert windows.n_free == windows.n_available == 12


def test_a_checkpoint_keeps_rows_until_they_are_needed() -> None:
    windows = rows()
    held = HeldRows(windows)
    held.extend(CELLS[:6])
    windows.save("node", CELLS[2:6])
    held.cut(CELLS, 0)
    assert (windows.n_free, windows.n_available) == (8, 12)
    assert windows.n_resumable(CELLS[:6]) == 6
    assert windows.n_resumable(CELLS[:4]) == 0  # the token after it sees cell 1
    windows.take(CELLS[10:20])
    assert windows.n_resumable(CELLS[:6]) == 0
    with pytest.raises(OutOfMemoryError, match="raise --kv-cells"):
        windows.take(CELLS[:3])
    windows.check([CELLS[10:20]], [], [cell < 10 for cell in range(20)])


def test_every_length_within_one_window_can_be_resumed() -> None:
    windows = rows(window=8)
    windows.take(CELLS[:7])
    assert [windows.n_resumable(CELLS[:n]) for n in range(8)] == list(range(8))


def test_sequence_that_takes_over_cells_moves_its_rows_to_them() -> None:
    windows = rows()
    windows.take(CELLS[:2])  # another sequence has rows for the first two cells only
    windows.take(CELLS[10:14])
    moved = windows.rows(CELLS[12:14])
    windows.replace(CELLS[10:14], CELLS[:4])
    assert windows.rows(CELLS[2:4]) == moved
    assert windows.rows(CELLS[10:14]) == []
    windows.check([CELLS[:4], CELLS[:2]], [], [cell > 3 for cell in range(20)])
