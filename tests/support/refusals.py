"""GGUF files that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile


def refused(path: Path) -> str:
    """Opens a file that must be refused; returns the reason."""
    with pytest.raises(ModelError) as caught:
        GGUFFile.open(path)
    message = str(caught.value)
    assert type(caught.value) is ModelError
    assert "\n" not in message
    assert message.isprintable()
    assert message.startswith(str(path) + ": ")
    return message.removeprefix(str(path) + ": ")
