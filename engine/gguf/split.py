"""Which files make up a model: one, or the parts of a split model as llama-gguf-split names them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from engine.gguf.report import printable

MAX_PARTS = 9999
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

Fail = Callable[[str], NoReturn]


def part_name(stem: str, number: int, count: int) -> str:
    """The file name of part `number` (from 1) of `count`."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def is_part_of(name: str, stem: str) -> bool:
    """Whether a file is named as a part of the split model `stem`."""
    part = _PART.fullmatch(name)
    return part is not None and part["stem"] == stem


def model_name(path: Path) -> str:
    """The name of a model given its file or directory: without suffix and part number."""
    part = _PART.fullmatch(path.name)
    return part["stem"] if part else path.name.removesuffix(".gguf")


def part_paths(path: Path, count: int, fail: Fail) -> list[Path]:
    """The paths of all parts, found by the name of one. `fail` says which one is missing."""
    part = _PART.fullmatch(path.name)
    if part is None or int(part["count"]) != count:
        example = part_name("NAME", 1, count)
        fail(f"is one of {count} parts of a split model; parts must be named as in {example}")
    paths = [path.with_name(part_name(part["stem"], n, count)) for n in range(1, count + 1)]
    missing = [other.name for other in paths if not other.exists()]
    if missing:
        names = ", ".join(printable(name) for name in missing[:3]) + (", …" if len(missing) > 3 else "")
        fail(f"{len(missing)} of the {count} parts of this split model are missing: {names}")
    return paths


def files_of(path: Path) -> list[Path]:
    """The files of the model that a file or a directory names, whether or not they are there."""
    if path.is_dir():
        return sorted(path.glob("*.gguf"))
    part = _PART.fullmatch(path.name)
    if part is None:
        return [path]
    count = min(int(part["count"]), MAX_PARTS)
    return [path.with_name(part_name(part["stem"], n, count)) for n in range(1, count + 1)]


def model_in(directory: Path, fail: Fail) -> Path:
    """The model file in a directory, of a split model the first part; `fail` if there is not exactly one."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(".gguf"))
    except OSError as error:
        fail(f"cannot be read: {error.strerror or error}")
    models: dict[str, str] = {}
    for name in names:
        if not name.startswith("mmproj"):  # the vision part of a model, in a file beside it
            models.setdefault(model_name(Path(name)), name)
    if len(models) == 1:
        return directory / next(iter(models.values()))
    if not models:
        fail("is a directory without .gguf files")
    few = ", ".join(printable(name) for name in list(models.values())[:4]) + (
        ", …" if len(models) > 4 else ""
    )
    fail(f"is a directory with {len(models)} models; give the path of one of them ({few})")
