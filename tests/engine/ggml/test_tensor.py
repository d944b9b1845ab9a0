"""Tensors: reads and writes within their bounds, memory that is not there, unknown types."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import GgmlError, OutOfMemoryError
from engine.ggml.operations import Context
from engine.ggml.tensor import F32, type_id
from support.references.calculator import CPU

HOST = CPU.buffer_types()[-1]


def test_tensor_without_memory_or_of_the_wrong_size_is_refused() -> None:
    ctx: Any = Context(2)
    a = ctx.new(F32, (8,))
    with pytest.raises(GgmlError, match="no memory"):
        a.get()
    with pytest.raises(GgmlError, match="no memory"):
        a.set(b"1234")
    ctx.allocate(HOST)
    with pytest.raises(GgmlError, match="do not fit"):
        a.set(bytes(33))
    a.set(bytes(32))
    assert a.get() == bytes(32)
    a.set(b"12345678", 20)
    assert (a.get(24), a.get(18, 4), a.get(32), a.get(32, 0)) == (b"5678\0\0\0\0", b"\0\x0012", b"", b"")
    for offset, size in ((33, None), (33, 0), (0, 33), (30, 3), (1, 2**64 - 1), (0, -1)):
        with pytest.raises(GgmlError, match="has no"):
            a.get(offset, size)
    with pytest.raises(GgmlError, match="do not fit"):
        a.set(b"1", 2**64 - 1)


def test_move_copies_within_a_tensor_and_its_bounds() -> None:
    ctx: Any = Context(1)
    a = ctx.new(F32, (4,))
    with pytest.raises(GgmlError, match="no memory"):
        a.move(0, 4, 4)
    ctx.allocate(HOST)
    a.set(b"0123456789abcdef")
    a.move(0, 8, 4)
    assert a.get() == b"012345670123cdef"
    a.move(0, 2, 14)  # overlapping
    assert a.get() == b"01012345670123cd"
    for numbers in ((13, 0, 4), (0, 13, 4), (0, 0, 17), (2**64 - 1, 0, 2)):
        with pytest.raises(GgmlError, match="has no"):
            a.move(*numbers)


def test_too_large_allocation_names_device_and_sizes() -> None:
    ctx: Any = Context(1)
    ctx.new(F32, (1 << 40, 64))
    with pytest.raises(OutOfMemoryError, match=r"CPU.*281474976710656 bytes") as caught:
        ctx.allocate(HOST)
    assert caught.value.needed == 1 << 48


def test_type_id_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(GgmlError, match="q9_9"):
        type_id("q9_9")
