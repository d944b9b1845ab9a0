"""Importance matrices as measured by llama-imatrix, in GGUF or the older .dat format."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError, ModelError
from engine.gguf import GGMLType, GGUFFile

_SUMS, _COUNTS = ".in_sum2", ".counts"


def read_importance(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float32]]:
    """By tensor: the mean square of each input, float32 [experts, n]; of a .dat file [1, experts * n].

    Raises ModelError if it cannot be read, ConfigError for a damaged file or another kind of file.
    """
    with _open(path) as raw:
        if raw.read(4) != b"GGUF":
            raw.seek(0)
            return _read_dat(path, raw.read())
    importances = {}
    with GGUFFile.open(path) as file:
        for name, t in file.tensors.items():
            if not name.endswith(_SUMS):
                continue
            stem = name.removesuffix(_SUMS)
            counts = file.tensors.get(stem + _COUNTS)
            if counts is None or GGMLType.F32 not in (t.type, counts.type) or t.type != counts.type:
                raise ConfigError(f"{path}: {stem} has no counts of type f32")
            sums = np.frombuffer(file.data(t), np.float32).reshape(-1, t.shape[0])
            n = np.frombuffer(file.data(counts), np.float32).reshape(-1, 1)
            if len(n) not in (1, len(sums)):
                raise ConfigError(f"{path}: {stem} has {len(sums)} rows of sums and {len(n)} counts")
            # An expert that was never chosen has no importances: all columns count the same.
            means = np.where(n > 0, sums / np.maximum(n, 1e-30), 1.0).astype(np.float32)
            if not np.isfinite(means).all():
                raise ConfigError(f"{path}: {stem} has importances that are not finite")
            importances[stem] = means
    if not importances:
        raise ConfigError(f"{path} is not an imatrix file: it has no tensors named *{_SUMS}")
    return importances


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise ModelError(f"{path}: the imatrix file cannot be read: {error.strerror}") from error


def _read_dat(path: str | os.PathLike[str], data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Number of entries, then for each: length of the name, name, calls, numbers, means times calls."""
    importances = {}
    try:
        (n_entries,) = struct.unpack_from("<i", data)
        at = 4
        for _ in range(n_entries):
            (n_name,) = struct.unpack_from("<i", data, at)
            name = data[at + 4 : at + 4 + n_name].decode()
            calls, n = struct.unpack_from("<2i", data, at + 4 + n_name)
            at += 12 + n_name
            if not name or n < 1 or len(data) < at + 4 * n:
                raise ValueError(f"{n} numbers for {name!r}")
            means = np.frombuffer(data, "<f4", n, at).astype(np.float32) / max(calls, 1)
            if not np.isfinite(means).all():
                raise ConfigError(f"{path}: {name} has importances that are not finite")
            importances[name] = means.reshape(1, n)
            at += 4 * n
    except (struct.error, ValueError) as error:
        raise ConfigError(f"{path} is not an imatrix file, or damaged: {error}") from error
    if not importances:
        raise ConfigError(f"{path} is not an imatrix file: it has no entries")
    return importances
