"""Compiled kernels are kept on disk by device and driver, and nothing broken is handed to a driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# In a process of its own: programs are compiled once in each.
SCRIPT = """
import numpy as np
from engine.ggml.backend import devices
from support.references.calculator import Calculator
c = Calculator(next(d for d in devices() if d.name == "CLBlast0"))
x = np.arange(8, dtype=np.float32)
assert np.array_equal(c.compute(c.ctx.scale(c.input(x), 2.0)).squeeze(), 2 * x)
"""


def run(cache: Path, driver: str = "pthread") -> None:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"GGSERVE_CACHE": str(cache), "POCL_DEVICES": driver, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def compute(cache: Path, driver: str = "pthread") -> dict[str, tuple[int, bytes]]:
    """Runs it with that cache; what is there afterwards: times of writing and contents."""
    run(cache, driver)
    files = sorted((cache / "clblast").iterdir())
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_program_is_compiled_once_per_device(tmp_path: Path) -> None:
    first = compute(tmp_path)
    assert len(first) == 1
    (name,) = first
    assert name.endswith(".bin")
    assert compute(tmp_path) == first
    both = compute(tmp_path, "basic")  # another device of PoCL's
    assert len(both) == 2
    assert both[name] == first[name]


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    ((name, (_, good)),) = compute(tmp_path).items()
    path = tmp_path / "clblast" / name
    half = bytearray(good)
    half[len(half) // 2] ^= 1
    for damaged in (bytes(half), good[: len(good) // 2], b""):
        path.write_bytes(damaged)
        ((_, now),) = compute(tmp_path).values()
        assert now != damaged
        assert compute(tmp_path)[name][1] == now


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "clblast").touch()  # a file in the place of the folder
    run(tmp_path)  # computes all the same
    assert [path.name for path in tmp_path.iterdir()] == ["clblast"]
    assert (tmp_path / "clblast").read_bytes() == b""
