"""The scheduler refuses what ggml would abort on."""

from __future__ import annotations

import pytest

from engine.errors import GgmlError
from engine.ggml.backend import Backend
from engine.ggml.sched import Sched
from support.references.calculator import CPU


def test_cpu_must_come_last() -> None:
    with pytest.raises(GgmlError, match="last"):
        Sched([], 64)


def test_more_backends_than_ggml_takes_are_refused() -> None:
    backend = Backend(CPU, 1)
    with pytest.raises(GgmlError, match="17 devices at once; at most 16"):
        Sched([backend] * 17, 64)


def test_invalid_backend_is_refused() -> None:
    with pytest.raises(TypeError):
        Sched([None, Backend(CPU, 1)], 64)  # type: ignore[list-item]
