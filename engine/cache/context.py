"""What a saved session needs from a loaded model: its cache, and the model's identity."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache


class CellTables(Protocol):
    """The part of `engine.cache.kv_cache.KVCache` that copies cells, without its compiled imports."""

    @property
    def kv_type(self) -> str: ...

    def tables(self) -> Iterator[tuple[str, Any, bool]]:
        """Every tensor of the cache by name, and whether its rows are window rows instead of cells.

        A row takes `strides[1]` bytes.
        """

    def read(self, table: Any, cells: array[int], /) -> Iterator[bytearray]:
        """The rows of `cells`, in order, chunk by chunk."""

    def write(self, table: Any, cells: array[int], rows: memoryview, /) -> None:
        """Copy `rows` into `cells`."""

    def clear(self, cells: array[int], rows: array[int], /) -> None:
        """Zero `cells` and, in layers with a window, `rows`."""


class StateTable(Protocol):
    """The part of `engine.cache.state_cache.StateCache` that copies states out and in."""

    @property
    def nbytes(self) -> int:
        """Bytes of one sequence's states."""

    def read(self, slot: int, /) -> bytearray: ...

    def write(self, slot: int, state: memoryview, /) -> None: ...


class CacheContext(Protocol):
    """A loaded model as `engine.cache.session_file` sees it; `engine.model.context` extends it."""

    @property
    def pool(self) -> CellPool: ...

    @property
    def prefix(self) -> PrefixCache: ...

    @property
    def cache(self) -> CellTables: ...

    @property
    def states(self) -> StateTable | None:
        """The recurrent states, if the model has any."""

    @property
    def n_ctx(self) -> int:
        """Maximum number of tokens of a session."""

    @property
    def n_vocab(self) -> int:
        """Length of a row of logits."""

    @property
    def fingerprint(self) -> str:
        """See `engine.gguf.fingerprint`."""

    @property
    def adapters(self) -> Sequence[str]:
        """The fingerprints of the LoRA adapters, by number."""
