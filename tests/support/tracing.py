"""Trace functions, in place while something runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


@contextmanager
def traced_threads(trace: Trace) -> Iterator[None]:
    """The threads that start meanwhile: an application's start with its first request."""
    before = threading.gettrace()
    threading.settrace(trace)
    try:
        yield
    finally:
        threading.settrace(before)  # type: ignore[arg-type]


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """This thread, and those that start meanwhile."""
    before = sys.gettrace()
    with traced_threads(trace):
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)
