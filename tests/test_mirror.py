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
    "engine/hparams": "declarations",
    "engine/nn/architecture": "a base class",
    "server/api/common/api": "a declaration",
    "server/generation/formatter": "a base class",
    "server/generation/options": "declarations",
    "server/input/requests": "declarations",
    "server/worker/engine": "a protocol",
    "engine/tasks/types": "declarations",
    "engine/gguf/types": "declarations",
    "engine/cache/context": "a protocol",
    "engine/model/context": "a protocol",
    "engine/model/placement_types": "declarations",
    "server/worker/errors": "declarations",
    "server/terminal/backend": "a protocol",
}

# Modules that are tested with another one of their package, and the file that does it.
TESTED_IN = {
    "server/api/common/model_files": "server/api/ollama/test_pull.py",
    "server/api/common/replies/errors": "server/test_errors.py",
    "server/api/common/requests/json_reader": "api_contract/test_bodies.py",
    "server/api/common/replies/model_info": "server/api/openai/test_models.py",
    "server/api/common/requests/tools": "server/api/openai/chat/test_tools.py",
    "server/api/common/requests/structured_output": "server/input/test_constraints.py",
    "server/api/ggserve/metrics": "server/metrics/test_prometheus.py",
    "server/api/ollama/formatter": "server/api/ollama/test_routes.py",
    "server/chat/template/child": "server/chat/template/test_sandbox.py",
    "server/cli/generation_options": "server/cli/test_main.py",
    "server/models/__main__": "test_build.py",
    "server/cli/list": "server/cli/test_pulling.py",
    "server/cli/pull": "server/cli/test_pulling.py",
    "server/cli/rm": "server/cli/test_pulling.py",
    "server/models/bundled": "test_build.py",
    "server/models/errors": "server/models/test_wheel.py",
    "server/models/stored": "server/models/test_catalog.py",
    "server/dependencies": "server/test_app.py",
    "server/generation/tasks": "server/api/openai/embeddings/test_routes.py",
    "server/ids": "server/test_app.py",
    "server/sandbox/child": "server/sandbox/test_process.py",
    "server/state": "server/test_app.py",
    "server/version": "server/cli/test_main.py",
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
    assert not [m for m in modules() if not (is_tested(m) or is_exempt(m) or m in TESTED_IN)]


@pytest.mark.parametrize("pattern", EXEMPT)
def test_an_exemption_is_still_needed(pattern: str) -> None:
    assert any(fnmatch(module, pattern) and not is_tested(module) for module in modules())


@pytest.mark.parametrize("module", TESTED_IN)
def test_a_module_that_is_tested_elsewhere_has_no_file_of_its_own(module: str) -> None:
    assert module in modules()
    assert not is_tested(module)
    assert not is_exempt(module)
    assert (ROOT / "tests" / TESTED_IN[module]).is_file()
