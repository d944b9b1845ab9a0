"""The version of the installed distribution."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """The version that `ggserve --version` prints."""
    from importlib import metadata  # takes a moment to import

    try:
        return metadata.version("ggserve")
    except metadata.PackageNotFoundError:
        return "(not installed)"
