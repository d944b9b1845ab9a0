"""The KV cache's tensors: one row of K and one of V per cell and layer, on the layer's device.

`engine.cache.cell_pool` and `engine.cache.prefix_cache` track which sequence owns which cell,
`engine.cache.window_rows` which cells have rows in layers with a window.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from engine.cache.window_rows import WindowRows
from engine.config import KV_TYPES
from engine.errors import ConfigError, GgmlError
from engine.ggml.tensor import Storage, row_size, type_id
from engine.hparams import HParams


def check_type(hp: HParams, kv_type: str) -> int:
    """ggml's number for `kv_type`. Raises ConfigError if a head's row is not a whole number of its blocks."""
    if kv_type not in KV_TYPES:
        raise ConfigError(f"kv_type is {kv_type!r}; it must be one of {', '.join(KV_TYPES)}")
    number: int = type_id(kv_type)
    if not any(hp.n_head_kv):
        return number
    pairs = [hp.dims(i) for i in range(hp.n_layer)]
    sizes = {("key", dk) for dk, _ in pairs} | {("value", dv) for _, dv in pairs}
    for name, d in sorted(sizes):
        try:
            row_size(number, d)
        except GgmlError as error:
            raise ConfigError(
                f"kv_type {kv_type} stores blocks of 32, but this model's {name} heads have {d} elements; "
                "use f16"
            ) from error
    return number


def bytes_per_cell(hp: HParams, kv_type: str) -> list[int]:
    """Bytes per cell in each layer."""
    number = check_type(hp, kv_type)
    sizes = []
    for i, heads in enumerate(hp.n_head_kv):
        dk, dv = hp.dims(i)
        sizes.append(int(row_size(number, dk * heads) + row_size(number, 0 if hp.latent else dv * heads)))
    return sizes


def runs(cells: array[int]) -> Iterator[tuple[int, int]]:
    """(first cell, length) of the runs of consecutive numbers, in the order of `cells`."""
    start = 0
    for i in range(1, len(cells) + 1):
        if i == len(cells) or cells[i] != cells[i - 1] + 1:
            yield cells[start], i - start
            start = i


class KVCache:
    """Of layer i: k[i] [head_dim_k * heads_kv, n_cells] and v[i] [head_dim_v * heads_kv, n_cells].

    None for layers without attention. With `HParams.latent` there is no v: values are the first head_dim_v
    elements of a row of k.

    windows: layers that keep only a window (`HParams.keeps_window`) have these rows instead of n_cells.
    zeroed: masked attention multiplies unused cells by zero, so they must be finite. Paged attention only
    reads cells that were written; without zeroing the cache takes memory only as it is used.
    """

    def __init__(
        self,
        hp: HParams,
        n_cells: int,
        kv_type: str,
        buffer_types: list[Any],
        *,
        windows: WindowRows | None = None,
        zeroed: bool = True,
    ) -> None:
        """Six parameters, and the caller's choice of zeroing."""
        number = check_type(hp, kv_type)
        self.n_cells, self.kv_type, self.windows = n_cells, kv_type, windows
        self.windowed = [windows is not None and hp.keeps_window(i) for i in range(hp.n_layer)]
        contexts: dict[str, tuple[Any, Any]] = {}
        self.k: list[Any] = []
        self.v: list[Any] = []
        for i, buffer_type in enumerate(buffer_types):
            if not hp.attends(i):
                self.k.append(None)
                self.v.append(None)
                continue
            if buffer_type.name not in contexts:
                contexts[buffer_type.name] = Storage(2 * hp.n_layer), buffer_type
            ctx = contexts[buffer_type.name][0]
            dk, dv = hp.dims(i)
            n_rows = windows.n_rows if windows is not None and self.windowed[i] else n_cells
            self.k.append(ctx.new(number, (dk * hp.n_head_kv[i], n_rows), f"cache.k.{i}"))
            if hp.latent is None:
                self.v.append(ctx.new(number, (dv * hp.n_head_kv[i], n_rows), f"cache.v.{i}"))
        self.buffers = [ctx.allocate(buffer_type) for ctx, buffer_type in contexts.values()]
        if zeroed:
            for buffer in self.buffers:
                buffer.clear()

    def tables(self) -> Iterator[tuple[str, Any, bool]]:
        """Every tensor by name, layer by layer, and whether its rows are window rows instead of cells.

        A row takes `strides[1]` bytes.
        """
        for i, k in enumerate(self.k):
            if k is not None:
                yield f"k.{i}", k, self.windowed[i]
            if self.v and self.v[i] is not None:
                yield f"v.{i}", self.v[i], self.windowed[i]

    @staticmethod
    def read(table: Any, cells: array[int]) -> Iterator[bytearray]:
        """The rows of `cells`, in order, chunk by chunk."""
        size = table.strides[1]
        for cell, n in runs(cells):
            yield table.get(cell * size, n * size)

    @staticmethod
    def write(table: Any, cells: array[int], rows: memoryview) -> None:
        """Copy `rows`, as many bytes as `read` yields, into `cells`."""
        size, done = table.strides[1], 0
        if len(rows) != len(cells) * size:
            raise ValueError(f"{len(rows)} bytes for {len(cells)} cells of {size}")
        for cell, n in runs(cells):
            table.set(rows[done : done + n * size], cell * size)
            done += n * size

    def clear(self, cells: array[int], rows: array[int]) -> None:
        """Zero `cells` and, in layers with a window, `rows`."""
        for _, table, windowed in self.tables():
            numbers = rows if windowed else cells
            self.write(table, numbers, memoryview(bytes(len(numbers) * table.strides[1])))

    @property
    def nbytes(self) -> int:
        return sum(buffer.size for buffer in self.buffers)

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.close()
