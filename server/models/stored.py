"""A model on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["bundled", "package", "hub", "ollama", "lmstudio"]


@dataclass(frozen=True)
class StoredModel:
    """name: a value for --model. path: its file, or the first part of it. size: of all parts, in bytes.

    digest: sha256 of the first part in hexadecimal, if the store knows it. modified: Unix time.
    """

    name: str
    source: Source
    path: Path
    size: int
    digest: str | None
    modified: float
