"""Devices and backends: their version, threads, and memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.ggml.backend import Backend, devices, version
from engine.ggml.tensor import F32, Storage
from support.references.calculator import CPU


def test_thread_count_can_change() -> None:
    backend = Backend(CPU, 1)
    for n in (2, 1, 3):
        backend.set_threads(n)
        assert backend.n_threads == n


@pytest.mark.parametrize("n", [0, -1, 513, 1 << 30])
def test_thread_count_on_which_ggml_would_abort_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n_threads is {n}; it must be 1 to 512"):
        Backend(CPU, n)


def test_version_is_the_pinned_one() -> None:
    pin = json.loads((Path(__file__).parents[3] / "ggml" / "pin.json").read_text())
    assert version() == pin["ggml"]


def test_the_cpu_is_the_last_device_and_allocates_in_host_memory_last() -> None:
    assert devices()[-1].type == "cpu"
    assert CPU.buffer_types()[-1].is_host
    assert CPU.total > 0


def test_weights_on_the_cpu_get_large_pages_where_the_system_has_them() -> None:
    home = Storage(1)
    home.new(F32, (1 << 23, 2), "weights")  # so large that no memory is used again that was freed
    buffer = home.allocate(CPU.buffer_types()[-1])
    has_them = Path("/sys/kernel/mm/transparent_hugepage").is_dir()
    before = large()
    buffer.mark_weights()
    assert (large() >= before + (63 << 10)) == has_them


def large() -> int:
    """Kilobytes of this process for which large pages were asked; 0 where it is not Linux."""
    path = Path("/proc/self/smaps")
    areas = re.findall(
        r"^Size: +(\d+) kB.*?^VmFlags:([^\n]*)", path.read_text() if path.exists() else "", re.M | re.S
    )
    return sum(int(size) for size, flags in areas if "hg" in flags.split())
