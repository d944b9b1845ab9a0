"""What a quick run (`-m "not e2e"`) leaves to whole runs: most of a matrix, and most random examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

FULL = "full"  # hypothesis profiles, chosen in tests/conftest.py
QUICK = "quick"


def matrix(cases: Iterable[Any], always: Callable[[Any], object]) -> list[Any]:
    """Parameters of `cases`; those for which `always` is false are marked `exhaustive`."""
    return [_param(case, () if always(case) else pytest.mark.exhaustive) for case in cases]


def every(n: int, cases: Iterable[Any]) -> list[Any]:
    """Parameters of `cases`; all but each nth are marked `exhaustive`."""
    return [_param(case, pytest.mark.exhaustive if i % n else ()) for i, case in enumerate(cases)]


def _param(case: Any, marks: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)


def examples(n: int, **more: Any) -> settings:
    """Settings of a property: `n` examples in a whole run, a tenth of them (at least 10) in a quick one."""
    quick = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(n, max(10, n // 10)) if quick else n, **more)
