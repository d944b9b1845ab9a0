"""Who owns what: objects keep what they need alive, and the interpreter exits cleanly."""

from __future__ import annotations

import gc
import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import GgmlError
from engine.ggml.backend import Backend, BufferType, Device, devices, map_host_memory, version
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, Context, Tensor

CPU = next(d for d in devices() if d.type == "cpu")


def test_tensor_keeps_context_and_buffer_alive() -> None:
    ctx: Any = Context(1)
    tensor = ctx.new(F32, (4,))
    ctx.allocate(CPU.buffer_types()[-1])
    tensor.set(b"0123456789abcdef")
    del ctx
    gc.collect()
    assert tensor.get() == b"0123456789abcdef"


def test_mapped_memory_is_used_in_place_and_kept_alive() -> None:
    area = mmap.mmap(-1, 4096)
    area[64:80] = b"0123456789abcdef"
    view = memoryview(area)
    buffer = map_host_memory(CPU.buffer_types()[-1], view, 16)
    ctx: Any = Context(1)
    tensor = ctx.new(F32, (4,))
    ctx.place(tensor, buffer, view[64:80])
    del view
    with pytest.raises(BufferError):
        area.close()
    assert tensor.get() == b"0123456789abcdef"


def test_handles_come_from_factories() -> None:
    for kind in (Tensor, Device, BufferType):
        with pytest.raises(TypeError):
            kind()


def test_close_twice() -> None:
    backend = Backend(CPU, 2)
    sched = Sched([backend], 64)
    sched.close()
    sched.close()
    backend.close()
    backend.close()


def test_cpu_must_come_last() -> None:
    with pytest.raises(GgmlError, match="last"):
        Sched([], 64)


def test_thread_count_can_change() -> None:
    backend = Backend(CPU, 1)
    for n in (2, 1, 3):
        backend.set_threads(n)
        assert backend.n_threads == n


def test_version_is_the_pinned_one() -> None:
    pin = json.loads((Path(__file__).parents[3] / "ggml" / "pin.json").read_text())
    assert version() == pin["ggml"]


def test_interpreter_exits_cleanly_with_live_handles() -> None:
    """Everything still open at exit: threads, buffers, graphs. No crash, no output."""
    code = (
        "import engine; from server.bundled import bundled_model\n"
        "m = engine.load(bundled_model(), engine.ModelParameters(n_threads=2))\n"
        "s = m.start_session(); s.feed_prompt('Once'); print(len(s.last_logits))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2048\n", "")
