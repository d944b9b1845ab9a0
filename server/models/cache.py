"""The folder in which downloaded model files are cached."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """GGSERVE_CACHE, or else `ggserve` in the platform's cache directory."""
    if path := os.environ.get("GGSERVE_CACHE"):
        return Path(path).expanduser().resolve()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ggserve"
