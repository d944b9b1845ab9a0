"""What is fuzzed: functions of bytes that raise only where something is wrong with us."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

import engine
from support.builders.golden import golden
from support.builders.snapshots import load
from support.references.damaged import behaves, mended, restores

CORPUS = Path(__file__).parent / "corpus"


@cache
def workfile() -> Path:
    """One file that is written again and again, in memory where there is such a folder."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    atexit.register(folder.cleanup)
    return Path(folder.name) / "fuzzed"


@cache
def model() -> engine.Model:
    return load(golden("llama-gqa-tied").path)


def gguf(data: bytes) -> bool:
    """The reader and the validation of model files, and what `ggserve info` makes of them."""
    workfile().write_bytes(data)
    return behaves(workfile(), with_info=True)


def session(data: bytes) -> bool:
    """The reader of saved sessions."""
    workfile().write_bytes(mended(data))
    return restores(model(), workfile())


TARGETS = {"gguf": gguf, "session": session}
