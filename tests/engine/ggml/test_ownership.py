"""Who owns what: objects keep what they need alive, and the interpreter exits cleanly."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
from array import array
from typing import Any

import pytest

import engine
from engine.errors import GgmlError
from engine.ggml.backend import Backend, BufferType, Device, devices, map_host_memory
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, Tensor
from engine.scheduler.batch import BatchItem
from server.models.bundled import bundled_model

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


def test_a_handle_closed_twice_is_closed() -> None:
    backend = Backend(CPU, 2)
    sched = Sched([backend], 64)
    for _ in range(2):
        sched.close()
        with pytest.raises(GgmlError, match="was closed"):
            sched.buffer_size(backend)
    for _ in range(2):
        backend.close()
        with pytest.raises(GgmlError, match="open CPU backend"):
            backend.set_threads(2)


def n_handles() -> int:
    return sum(type(o) in (Backend, Sched) for o in gc.get_objects())


def test_backend_and_scheduler_in_a_cycle_are_both_freed() -> None:
    """The collector clears what is older first: the backend, before what refers to it."""

    class Holder:
        me: Any

    gc.collect()
    before = n_handles()
    backend = Backend(CPU, 2)
    sched = Sched([backend], 64)
    holder = Holder()
    holder.me = holder, backend, sched
    assert n_handles() == before + 2
    del holder, backend, sched
    gc.collect()
    assert n_handles() == before


def test_use_of_a_closed_handle_is_an_error() -> None:
    ctx: Any = Context(2, graph_size=4)
    tensor = ctx.new(F32, (4,))
    buffer = ctx.allocate(CPU.buffer_types()[-1])
    buffer.close()
    for use in (tensor.get, lambda: tensor.set(bytes(16)), buffer.clear, buffer.lock, buffer.mark_weights):
        with pytest.raises(GgmlError, match="was closed"):
            use()
    for name in ("size", "is_host"):
        with pytest.raises(GgmlError, match="was closed"):
            getattr(buffer, name)
    backend = Backend(CPU, 1)
    sched, graph = Sched([backend], 64), ctx.graph(4)
    sched.close()
    backend.close()
    for use in (
        lambda: sched.allocate(graph),
        lambda: sched.reserve(graph),
        lambda: sched.compute(graph),
        lambda: sched.n_splits,
        lambda: sched.buffer_size(backend),
    ):
        with pytest.raises(GgmlError, match="was closed"):
            use()
    with pytest.raises(GgmlError, match="open CPU backend"):
        backend.set_threads(2)


def test_old_graphs_are_freed_without_the_garbage_collector() -> None:
    """Every new shape of a batch builds a graph; a cycle would keep them, and much memory, for a while."""
    with engine.load(bundled_model(), engine.ModelParameters(n_threads=1, kv_cells=64, context_size=64)) as m:

        def n_contexts() -> int:
            return sum(type(o) is Context for o in gc.get_objects())

        gc.collect()
        gc.disable()
        try:
            counts = []
            for n in (1, 2, 3, 4, 5):
                m.runner.forward([BatchItem([5] * n, array("i", range(n)), 0, True)])
                counts.append(n_contexts())
        finally:
            gc.enable()
    assert len(set(counts)) == 1, counts


def test_interpreter_exits_cleanly_with_live_handles() -> None:
    """Everything still open at exit: threads, buffers, graphs. No crash, no output."""
    code = (
        "import engine; from server.models.bundled import bundled_model\n"
        "m = engine.load(bundled_model(), engine.ModelParameters(n_threads=2))\n"
        "s = m.start_session(); s.feed_prompt('Once'); print(len(s.last_logits))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2048\n", "")
