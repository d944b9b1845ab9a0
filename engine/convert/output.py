"""Writing of GGUF files that appear whole or not at all, and of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf

from engine.errors import ConfigError


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """Yields the path to write to, which is renamed to `target` if nothing fails.

    Raises ConfigError if `target` exists and `force` is False."""
    if target.exists() and not force:
        raise ConfigError(f"{target} exists already; --force replaces it")
    part = target.with_name(target.name + ".part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def add_key(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    """Write a key with the type that GGUF files use for such a value."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
