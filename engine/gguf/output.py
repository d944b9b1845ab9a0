"""Writing of GGUF files: they appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np

from engine.errors import ConfigError
from engine.gguf.split import is_part_of
from engine.types import ProgressCallback


class NamedTensor(Protocol):
    """A tensor to be written. nbytes: its share of the progress."""

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """The path to write to; the file written there, or its parts, are moved into place at the end.

    The first part of a split model is moved last, so that it never exists without the others. Raises
    ConfigError if a file exists already and `force` is false.
    """
    _check_free(target, force)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=target.parent) as name:
        yield Path(name) / target.name
        written = sorted(Path(name).iterdir(), reverse=True)
        for path in written:
            _check_free(target.parent / path.name, force)
        for path in written:
            path.replace(target.parent / path.name)


def _check_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; --force replaces it")


def written_files(target: Path) -> list[Path]:
    """The file, or the parts written last, that `replacing(target)` left."""
    if target.exists():
        return [target]
    parts = [path for path in target.parent.iterdir() if is_part_of(path.name, target.stem)]
    last = max(parts, key=lambda path: path.stat().st_mtime_ns).name.rpartition("-of-")[2]
    return sorted(path for path in parts if path.name.endswith(last))


def write_data(
    writer: gguf.GGUFWriter,
    tensors: Iterable[tuple[NamedTensor, np.ndarray[Any, Any]]],
    total: int,
    progress: ProgressCallback | None,
) -> None:
    """Write the header that `writer` has collected, then the tensors with their data. total: bytes of all."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done = 0
    for tensor, data in tensors:
        writer.write_tensor_data(data)
        done += tensor.nbytes
        if progress is not None:
            progress(done / max(total, 1), tensor.name)
