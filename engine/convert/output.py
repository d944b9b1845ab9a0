"""The keys of a GGUF file, by their Python values."""

from __future__ import annotations

from typing import Any

import gguf


def add_key(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    """Write a key with the type that GGUF files use for this kind of value."""
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
