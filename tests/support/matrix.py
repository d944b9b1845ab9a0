"""Matrices of cases: representatives that every run tests, the rest in whole runs only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def matrix(cases: Iterable[Any], always: Callable[[Any], bool], ids: Callable[[Any], str] = str) -> list[Any]:
    """Parameters of `cases`; those for which `always` is false are marked `exhaustive`."""
    return [
        pytest.param(case, id=ids(case), marks=[] if always(case) else pytest.mark.exhaustive)
        for case in cases
    ]


def every(n: int, cases: Iterable[Any], ids: Callable[[Any], str] = str) -> list[Any]:
    """As `matrix`, with each nth case always."""
    numbered = dict(enumerate(cases))
    return [
        pytest.param(case, id=ids(case), marks=[] if i % n == 0 else pytest.mark.exhaustive)
        for i, case in numbered.items()
    ]
