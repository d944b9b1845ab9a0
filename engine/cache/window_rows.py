"""Rows for layers with a window: which cells have one.

A layer with a window reads only the last positions of a sequence. So its tensors have fewer rows than there
are cells, and a cell has a row only while something holds it: a sequence holds the rows that its next tokens
read, a checkpoint those before a place from which later requests may continue. Checkpoints are evicted when
rows are needed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.cache.cell_allocator import BLOCK, CellAllocator
from engine.cache.checkpoints import Checkpoints
from engine.errors import OutOfMemoryError

NO_ROW = -1


class WindowRows:
    """Rows by cell, and who holds them.

    window: a row at p attends to p - window + 1 … p. interval: tokens of a long prompt after which a
    checkpoint is made. slack: rows beyond its window that a sequence holds at least, once it is so long: a
    later request may part from it shortly before its end. It drops as many more together, which costs less
    than one by one.
    """

    def __init__(self, n_rows: int, window: int, n_cells: int, interval: int, *, slack: int = BLOCK) -> None:
        self.n_rows, self.window, self.interval, self.slack = n_rows, window, interval, slack
        self.row_of: NDArray[np.int32] = np.full(n_cells, NO_ROW, np.int32)
        self.n_held = 0  # rows that sequences hold
        self.checkpoints: Checkpoints[Any, NDArray[np.int32]] = Checkpoints()  # by node: cells
        self._rows = CellAllocator(n_rows)
        self._sequences = np.zeros(n_cells, np.int32)  # how many of them hold the row of a cell
        self._keepers = np.zeros(n_cells, np.int32)  # and how many checkpoints

    @property
    def reach(self) -> int:
        """How many earlier positions a token attends to."""
        return self.window - 1

    @property
    def most_held(self) -> int:
        """Maximum number of rows that a sequence holds between its steps."""
        return self.reach + 2 * self.slack

    @property
    def n_free(self) -> int:
        return self._rows.n_free

    @property
    def n_available(self) -> int:
        """Rows that a sequence can get: free ones and those held only by checkpoints."""
        return self.n_rows - self.n_held

    def n_resumable(self, cells: array[int]) -> int:
        """Of how many of these cells, the first of a sequence, all that the next token sees has rows."""
        has_row = (self.row_of[_numbers(cells)] != NO_ROW).tobytes()
        end = len(has_row)
        while end:
            gap = has_row.rfind(0, max(0, end - self.reach), end)
            if gap < 0:
                return end
            end = has_row.rfind(1, 0, gap) + 1
        return 0

    def make_room(self, n: int) -> None:
        """Evict checkpoints until `n` rows are free. Raises OutOfMemoryError if sequences hold too many."""
        if n > self.n_available:
            raise OutOfMemoryError(
                f"the KV cache has {self.n_available} of {self.n_rows} rows free for layers with a window, "
                f"{n} are needed; close a session or raise --kv-cells"
            )
        while n > self.n_free:
            self.forget(next(holder for holder, _ in self.checkpoints.items()))

    def take(self, cells: array[int], after: int = NO_ROW) -> None:
        """Rows for new cells, held by one sequence, if possible after the row `after`."""
        self.make_room(len(cells))
        numbers = _numbers(cells)
        self.row_of[numbers] = self._rows.alloc(len(cells), after)
        self._sequences[numbers] = 1
        self.n_held += len(cells)

    def hold(self, cells: array[int]) -> None:
        """Add one holder to the rows that these cells have."""
        numbers = _numbers(cells)
        self.n_held += _count(self._sequences[numbers] == 0)
        self._sequences[numbers] += 1

    def drop(self, cells: array[int]) -> None:
        """Remove one holder from them."""
        numbers = _numbers(cells)
        self._sequences[numbers] -= 1
        self.n_held -= _count(self._sequences[numbers] == 0)
        self._free_unheld(numbers)

    def replace(self, old: array[int], new: array[int]) -> None:
        """A sequence that alone holds `old` continues with `new`, cells with the same contents."""
        has_row = self.row_of[_numbers(old)] != NO_ROW
        ours, theirs = _numbers(old)[has_row], _numbers(new)[has_row]
        lacking = self.row_of[theirs] == NO_ROW
        self.row_of[theirs[lacking]] = self.row_of[ours[lacking]]
        self._rows.free(self.row_of[ours[~lacking]].tolist())
        self.row_of[ours] = NO_ROW
        self.n_held -= _count(self._sequences[theirs] > 0)
        self._sequences[theirs] += 1
        self._sequences[ours] = 0

    def save(self, holder: Any, cells: array[int], *, passing: bool = False) -> None:
        """Make a checkpoint of these cells, the last ones before the end of `holder`."""
        if holder in self.checkpoints:
            self.checkpoints.use(holder)
            return
        numbers = _numbers(cells).copy()
        self._keepers[numbers] += 1
        self.checkpoints.add(holder, numbers, passing=passing)

    def forget(self, holder: Any) -> None:
        """Drop a node's checkpoint, if it has one."""
        if holder in self.checkpoints:
            numbers = self.checkpoints.pop(holder)
            self._keepers[numbers] -= 1
            self._free_unheld(numbers)

    def rows(self, cells: array[int]) -> list[int]:
        """The rows that these cells have now."""
        rows = self.row_of[_numbers(cells)]
        numbers: list[int] = rows[rows != NO_ROW].tolist()
        return numbers

    def is_free(self, row: int) -> bool:
        return self._rows.is_free(row)

    def check(self, held: Iterable[array[int]], holders: Iterable[Any], is_free: list[bool]) -> None:
        """Raise AssertionError unless rows are held by these sequences and holders, and by nobody else.

        held: cells whose rows each sequence holds. is_free: by cell.
        """
        self._rows.check()
        sequences, keepers = np.zeros_like(self._sequences), np.zeros_like(self._keepers)
        for cells in held:
            sequences[_numbers(cells)] += 1
        nodes = set(holders)
        for holder, numbers in self.checkpoints.items():
            assert holder in nodes
            keepers[numbers] += 1
        assert (sequences == self._sequences).all()
        assert (keepers == self._keepers).all()
        has_row = self.row_of != NO_ROW
        assert (has_row == (sequences + keepers > 0)).all()
        assert not (has_row & np.array(is_free)).any()
        assert len(set(self.row_of[has_row].tolist())) == has_row.sum() == self.n_rows - self.n_free
        assert self.n_held == np.count_nonzero(sequences)

    def _free_unheld(self, numbers: NDArray[np.int32]) -> None:
        unheld = numbers[(self._sequences[numbers] == 0) & (self._keepers[numbers] == 0)]
        if len(unheld):
            self._rows.free(self.row_of[unheld].tolist())
            self.row_of[unheld] = NO_ROW


class HeldRows:
    """The rows that one sequence holds: those of its cells from `first` up to `end`, exclusive.

    windows None: the model has no window rows, so nothing is held.
    """

    __slots__ = ("end", "first", "windows")

    def __init__(self, windows: WindowRows | None) -> None:
        self.windows = windows
        self.first = self.end = 0

    def resume(self, cells: array[int]) -> None:
        """Hold what the next token reads of these cells."""
        if self.windows is not None:
            self.first, self.end = max(0, len(cells) - self.windows.reach), len(cells)
            self.windows.hold(cells[self.first :])

    def extend(self, cells: array[int]) -> None:
        """Take rows for new cells."""
        if self.windows is not None and len(cells) > self.end:
            after = self.windows.row_of[cells[self.end - 1]] if self.end > self.first else NO_ROW
            self.windows.take(cells[self.end :], int(after))
            self.end = len(cells)

    def can_resume(self, n: int) -> bool:
        """Whether everything is held that the token after the first `n` reads."""
        return self.windows is None or self.first <= max(0, n - self.windows.reach)

    def advance(self, cells: array[int], n: int) -> None:
        """Drop what no token after the first `n` reads, once that is enough to be worth it."""
        if self.windows is not None and n - self.windows.most_held >= self.first:
            self.skip(cells, n - self.windows.reach - self.windows.slack)

    def skip(self, cells: array[int], first: int) -> None:
        """Drop everything before `first`, and take no rows there."""
        if self.windows is not None and first > self.first:
            self.windows.drop(cells[self.first : min(first, self.end)])
            self.first, self.end = first, max(first, self.end)

    def cut(self, cells: array[int], n: int) -> None:
        """Drop everything after the first `n` cells."""
        if self.windows is not None and n < self.end:
            self.windows.drop(cells[max(n, self.first) : self.end])
            self.end = n
            self.first = min(self.first, n)

    def held(self, cells: array[int]) -> array[int]:
        """The cells whose rows are held."""
        return cells[self.first : self.end]


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _numbers(cells: array[int]) -> NDArray[np.int32]:
    return np.frombuffer(cells, np.int32) if cells else np.empty(0, np.int32)
