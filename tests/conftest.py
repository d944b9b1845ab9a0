"""Shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.greedy import GreedyComparison

# Tests that leave the choice open would get other devices, so those of backends have a run of their own.
collect_ignore = [] if os.environ.get("GGSERVE_CLBLAST_CPU") == "1" else ["backends"]
_COMPARISONS: list[GreedyComparison] = []


@pytest.fixture
def same_greedy() -> Iterator[GreedyComparison]:
    """Compares greedy texts; may end at a near-tie, and then the run's summary says how often."""
    comparison = GreedyComparison()
    yield comparison
    _COMPARISONS.append(comparison)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _COMPARISONS:
        n, ties = sum(c.n for c in _COMPARISONS), sum(c.near_ties for c in _COMPARISONS)
        terminalreporter.write_line(f"greedy comparisons: {n}, of which {ties} ended at a near-tie")
