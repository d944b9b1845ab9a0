"""Shared by all tests: which of them count as whole runs, and how far a quick run goes."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.quick import FULL, QUICK
from support.references.greedy import GreedyComparison

# Tests that leave the device open would get others, so those of backends have a run to themselves.
collect_ignore = [] if os.environ.get("GGSERVE_CLBLAST_CPU") == "1" else ["backends"]
if os.environ.get("GGSERVE_CLIENTS") != "1":  # they need packages that are no dependencies of the project
    collect_ignore.append("clients/live")
if os.environ.get("GGSERVE_RAY") != "1":
    collect_ignore.append("replicas")

WHOLE_RUNS = (Path(__file__).parent / "e2e", Path(__file__).parent / "real")
BROWSER = Path(__file__).parent / "browser"
for profile in (QUICK, FULL):
    settings.register_profile(profile, deadline=None, database=None)


def is_quick(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "not e2e")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(QUICK if is_quick(config) else FULL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One more than cores in a quick run, many of whose tests wait; whole runs keep the cores busy."""
    return (os.cpu_count() or 1) + 1 if is_quick(config) else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A quick run neither imports the clients and the fuzzer of whole runs nor downloads real models."""
    return True if is_quick(config) and collection_path in (*WHOLE_RUNS, BROWSER) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays; going through it again and again would take a fifth of this time."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    for item in items:
        if any(map(item.path.is_relative_to, WHOLE_RUNS)) or item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def shared_processes() -> Iterator[None]:
    """One process for all templates, one for all constraints: starting one takes longer than most tests."""
    from server.chat import chat_format
    from server.input import constraints
    from support.api.templates import SANDBOX
    from support.fakes.constraint_process import shared_checker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_format, "TemplateSandbox", lambda: SANDBOX)
        patch.setattr(constraints, "ConstraintChecker", shared_checker)
        yield


@pytest.fixture
def same_greedy(record_property) -> Iterator[GreedyComparison]:
    """Compares greedy texts; may end at a near-tie, and then the run's summary says how often."""
    comparison = GreedyComparison()
    yield comparison
    record_property("greedy", (comparison.n, comparison.near_ties))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "greedy"
    ]
    if counts:
        n, ties = map(sum, zip(*counts, strict=True))
        terminalreporter.write_line(f"greedy comparisons: {n}, of which {ties} ended at a near-tie")
