"""Quantities as text for people."""

from __future__ import annotations


def format_bytes(n: int) -> str:
    """A number of bytes with a binary unit, such as `1.5 GiB`."""
    if n < 1 << 10:
        return f"{n} B"
    for unit, size in (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)):
        if n < size << 10 or unit == "GiB":
            return f"{n / size:.1f} {unit}"
    raise AssertionError
