"""Allocation of numbered cells in few ascending runs."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from engine.errors import OutOfMemoryError

# A sequence whose next cell is taken continues at the start of a free block of this many cells. Sequences
# that grow side by side then have runs of this length instead of interleaving cell by cell, although no cell
# is reserved: when no block is free, the lowest free cells are used.
BLOCK = 32


class CellAllocator:
    """Allocates cells: after the caller's last cell, else in a free block, else the lowest free ones."""

    __slots__ = ("_block_free", "_free", "_lowest", "n_cells", "n_free")

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.n_free = n_cells
        # bytearrays, because find() then searches at the speed of memchr.
        self._free = bytearray(b"\1" * n_cells)
        self._lowest = 0  # no cell below it is free: where a search begins
        self._block_free = bytearray(min(BLOCK, n_cells - i) for i in range(0, n_cells, BLOCK))

    def alloc_one(self, after: int = -1) -> int:
        """One cell: the one after `after` if it is free (-1: no preference). Raises OutOfMemoryError if none
        is free.
        """
        cell = after + 1
        free = self._free
        if not (0 < cell < self.n_cells and free[cell]):
            if not self.n_free:
                raise self._exhausted(1)
            block = self._block_free.find(BLOCK)
            cell = block * BLOCK if block >= 0 else self._lowest_free()
        free[cell] = 0
        self._block_free[cell // BLOCK] -= 1
        self.n_free -= 1
        return cell

    def alloc(self, n: int, after: int = -1) -> array[int]:
        """`n` cells in few ascending runs, the first one after `after` if that is free.

        Raises OutOfMemoryError if too few cells are free.
        """
        if n > self.n_free:
            raise self._exhausted(n)
        cells = array("i")
        free, end = self._free, self.n_cells
        start = after + 1
        if n and 0 < start < end and free[start]:
            self._take(start, n, cells)
        while len(cells) < n and (block := self._block_free.find(BLOCK)) >= 0:
            self._take(block * BLOCK, n - len(cells), cells)
        while len(cells) < n:
            self._take(self._lowest_free(), n - len(cells), cells)
        return cells

    def free(self, cells: Iterable[int]) -> None:
        """Return cells."""
        free, block_free = self._free, self._block_free
        for start, stop in _runs(sorted(cells)):
            if free.find(1, start, stop) >= 0:
                raise AssertionError(f"a cell of {start}…{stop - 1} is freed twice")
            free[start:stop] = b"\1" * (stop - start)
            for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
                begin = block * BLOCK
                block_free[block] += min(stop, begin + BLOCK) - max(start, begin)
            self.n_free += stop - start
            self._lowest = min(self._lowest, start)

    def is_free(self, cell: int) -> bool:
        """Whether the cell is free."""
        return bool(self._free[cell])

    def check(self) -> None:
        """Raises AssertionError if the counters disagree with the map of free cells."""
        assert self._free.count(1) == self.n_free
        assert self._free.find(1, 0, self._lowest) < 0
        for block, n in enumerate(self._block_free):
            assert self._free.count(1, block * BLOCK, (block + 1) * BLOCK) == n, f"block {block}"

    def _lowest_free(self) -> int:
        self._lowest = self._free.find(1, self._lowest)
        return self._lowest

    def _take(self, start: int, limit: int, cells: array[int]) -> None:
        """Take the run of free cells that begins at `start`, at most `limit` of them."""
        free, block_free = self._free, self._block_free
        stop = min(start + limit, self.n_cells)
        used = free.find(0, start, stop)
        if used >= 0:
            stop = used
        free[start:stop] = bytes(stop - start)
        for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            begin = block * BLOCK
            block_free[block] -= min(stop, begin + BLOCK) - max(start, begin)
        self.n_free -= stop - start
        cells.extend(range(start, stop))

    def _exhausted(self, n: int) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"the KV cache has {self.n_free} of {self.n_cells} cells free, {n} are needed; "
            f"close a session or raise --kv-cells"
        )


def _runs(cells: list[int]) -> Iterator[tuple[int, int]]:
    """Runs (start, stop) of consecutive numbers in an ascending list."""
    i, n = 0, len(cells)
    while i < n:
        start = cells[i]
        # cells[j] - j never falls, so the end of the run is found by bisection.
        j = bisect_left(range(n), start - i + 1, lo=i, key=lambda j: cells[j] - j)
        yield start, start + j - i
        i = j
