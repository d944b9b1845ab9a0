"""The resources that sequences take from the cache: cells, and in some models slots for recurrent states or
window rows.

A cell holds the keys and values of one position of one sequence.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from engine.cache.cell_allocator import CellAllocator
from engine.cache.state_slots import StateSlots
from engine.cache.window_rows import WindowRows


class CellPool(CellAllocator):
    """The free cells.

    states: the slots that sequences also need, in a model with recurrent layers. windows: the rows of cells
    in layers with a window, if these have fewer rows than there are cells.
    """

    __slots__ = ("states", "windows")

    def __init__(
        self, n_cells: int, states: StateSlots | None = None, windows: WindowRows | None = None
    ) -> None:
        super().__init__(n_cells)
        self.states = states
        self.windows = windows

    @property
    def n_ready(self) -> int:
        """Cells that can be taken now, together with their rows."""
        return self.n_free if self.windows is None else min(self.n_free, self.windows.n_available)

    @property
    def window_rows(self) -> tuple[int, int, int]:
        """Rows of layers with a window: in total, held by sequences, held only by checkpoints."""
        rows = self.windows
        return (0, 0, 0) if rows is None else (rows.n_rows, rows.n_held, rows.n_available - rows.n_free)

    @property
    def has_checkpoints(self) -> bool:
        """Whether sequences can continue from certain lengths only, so that checkpoints are made."""
        return self.states is not None or self.windows is not None

    @property
    def lacks_slots(self) -> bool:
        """Whether sequences own all slots, in a model with recurrent states."""
        return self.states is not None and not self.states.n_available

    def rows_of(self, cells: array[int]) -> list[int]:
        """The rows of these cells in layers with a window."""
        return [] if self.windows is None else self.windows.rows(cells)

    def freed(self, cells: Iterable[int], rows: Iterable[int]) -> tuple[list[int], list[int]]:
        """The cells among these that are free now."""
        windows = self.windows
        return (
            [cell for cell in cells if self.is_free(cell)],
            [row for row in rows if windows is not None and windows.is_free(row)],
        )

    def lacks(self, n: int) -> bool:
        """Whether sequences own all slots, or all but fewer than `n` rows."""
        return self.lacks_slots or self.lacks_rows(n)

    def lacks_rows(self, n: int) -> bool:
        """Whether fewer than `n` rows can be taken, in a model with windows."""
        return self.windows is not None and self.windows.n_available < n
