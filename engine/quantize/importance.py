"""Importances of columns, as llama-imatrix measures and writes them to a GGUF file."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError
from engine.gguf import GGMLType, GGUFFile

_SUMS, _COUNTS = ".in_sum2", ".counts"


def read_importance(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float32]]:
    """By tensor: the mean square of each input, float32 [experts, n]. ModelError, ConfigError."""
    found = {}
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
            found[stem] = means
    if not found:
        raise ConfigError(f"{path} is no imatrix file: it has no tensors named *{_SUMS}")
    return found
