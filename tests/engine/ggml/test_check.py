"""ggml's log goes to Python's, and its last error is kept for a message."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from engine.errors import OutOfMemoryError
from engine.ggml import check
from engine.ggml.operations import Context
from engine.ggml.tensor import F32
from support.references.calculator import CPU


def fail_to_allocate() -> None:
    """An allocation that no machine has memory for: ggml logs an error."""
    ctx: Any = Context(1)
    ctx.new(F32, (1 << 40, 64))
    with pytest.raises(OutOfMemoryError):
        ctx.allocate(CPU.buffer_types()[-1])


def test_an_error_of_ggml_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ggserve.ggml"):
        fail_to_allocate()
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors
    assert all(line and line == line.strip() and "\n" not in line for line in errors)


def test_last_error_is_cleared_when_it_was_read() -> None:
    fail_to_allocate()
    assert "failed to allocate" in check.last_error()
    assert check.last_error() == ""
