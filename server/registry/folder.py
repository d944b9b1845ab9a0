"""The models in a folder: its GGUF files and its subfolders. A split model counts once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.gguf.split import model_name

SUFFIX = ".gguf"
NO_MODEL = ("mmproj", "mtp-")  # files that belong to a model beside them
MAX_NAME = 200


def models_in(folder: Path) -> dict[str, Path]:
    """Name → first file, sorted by name. Raises OSError if the folder cannot be read.

    A model is named after its file without the suffix, or after its subfolder; if a subfolder contains
    several, each is SUBFOLDER/NAME.
    """
    models: dict[str, Path] = {}
    for name, path in _models(folder):
        models.setdefault(name, path)
    subfolders = sorted(entry.name for entry in os.scandir(folder) if _is(entry, os.DirEntry.is_dir))
    for subfolder in subfolders:
        try:
            inside = dict(_models(folder / subfolder))
        except OSError:  # removed meanwhile, or of another user
            continue
        single = len(inside) == 1 and subfolder not in models
        models |= {(subfolder if single else f"{subfolder}/{name}"): path for name, path in inside.items()}
    return dict(sorted((name, path) for name, path in models.items() if _is_name(name)))


def _models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and first file of each model directly in the folder."""
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.name.endswith(SUFFIX)
        and not entry.name.startswith((".", *NO_MODEL))
        and _is(entry, os.DirEntry.is_file)
    )
    first: dict[str, Path] = {}
    for name in names:  # parts are numbered with leading zeros
        first.setdefault(model_name(Path(name)), folder / name)
    yield from first.items()


def _is(entry: os.DirEntry[str], kind: object) -> bool:
    assert callable(kind)
    try:
        return not entry.name.startswith(".") and bool(kind(entry))
    except OSError:  # a link to a place that cannot be read
        return False


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable()
