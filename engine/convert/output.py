"""A GGUF file that appears whole or not at all, and its keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf

from engine.errors import ConfigError


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """The path to write to; it becomes `target` if nothing fails. ConfigError if that is there already."""
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already; --force replaces it")
    part = target.with_name(target.name + ".part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def add_key(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    """A key of the type that GGUF files have for such a value."""
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
