"""Every module that decides something has a test file at the mirrored path."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache

import pytest

from support.import_graph import ROOT

# Modules without a test file, and why. A line for a module that is not there or has a test file fails.
EXEMPT = {
    "server/__main__": "calls the command line",
    "server/api/**/schema": "fields; tests/api_contract reads them from /openapi.json",
    "engine/architectures/*": "leaves of a kind: test_init.py and test_golden.py take each",
    "engine/convert/huggingface/*": "leaves of a kind: tests/engine/convert/test_converter.py takes each",
    "server/chat/tool_calls/*": "leaves of a kind: test_parsers.py and test_grammars.py take each",
    "engine/types": "declarations",
    "engine/convert/legacy/formats": "a table; tests/engine/convert/legacy/test_converter.py takes each row",
    "engine/constraint/json_schema/shapes/types": "declarations",
    "engine/errors": "declarations",
    "engine/nn/architecture": "a base class",
    "server/api/common/api": "a declaration",
    "server/chat/output": "declarations",
    "server/generation/options": "declarations",
    "server/worker/engine": "a protocol",
    "engine/tasks/types": "declarations",
    "engine/gguf/types": "declarations",
    "engine/cache/context": "a protocol",
    "engine/model/context": "a protocol",
    "server/replicas/application": "joins the others by Ray Serve; tests/replicas runs it",
    "server/replicas/router": "calls routing out of Ray Serve; tests/replicas runs it",
    "server/worker/errors": "declarations",
    "server/terminal/backend": "a protocol",
    "server/models/errors": "declarations",
    "server/models/stored": "a declaration",
    "server/cli/pull": "joins catalog, plan and download; tests/server/cli/test_pulling.py runs it",
    "server/sandbox/child": "limits its own process, so only another can see it: test_process.py",
    "server/dependencies": "hands on what the application holds; every test of a route goes through it",
}


@cache
def modules() -> tuple[str, ...]:
    """Paths of the modules without a suffix."""
    paths = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for package in ("engine", "server")
        for suffix in ("py", "pyx")
        for path in (ROOT / package).rglob(f"*.{suffix}")
        if path.stem != "__init__"
    }
    return tuple(sorted(paths))


def is_tested(module: str) -> bool:
    folder, _, name = module.rpartition("/")
    return (ROOT / "tests" / folder / f"test_{name}.py").is_file()


def is_exempt(module: str) -> bool:
    return any(fnmatch(module, pattern) for pattern in EXEMPT)


def test_every_module_has_a_test_file_at_its_path() -> None:
    assert not [m for m in modules() if not (is_tested(m) or is_exempt(m))]


@pytest.mark.parametrize("pattern", EXEMPT)
def test_every_exemption_is_still_needed(pattern: str) -> None:
    assert any(fnmatch(module, pattern) and not is_tested(module) for module in modules())
