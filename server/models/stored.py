"""A model on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["bundled", "package", "hub", "ollama", "lmstudio"]


@dataclass(frozen=True)
class StoredModel:
    """name: what --model takes. path: its file, or the first part of it. size: of all parts, in bytes.

    digest: sha256 in hexadecimal where the store knows it, of the first part. modified: Unix time.
    """

    name: str
    source: Source
    path: Path
    size: int
    digest: str | None
    modified: float
