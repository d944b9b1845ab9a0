"""Imports have no circles, and go where the table in ARCHITECTURE.md lets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.import_graph import ROOT, circles, import_graph, imported_names, sources

TABLE = re.compile(r"^## Imports\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`.+?`) \| (.*?) \|$", re.MULTILINE)


def allowed() -> dict[str, set[str]]:
    """Package → packages that it may import, besides itself."""
    section = TABLE.search((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert section
    rows: dict[str, set[str]] = {}
    for packages, targets in ROW.findall(section[1]):
        for package in re.findall(r"`([\w.]+)`", packages):
            assert package not in rows, f"{package} is given twice"
            rows[package] = set(re.findall(r"`([\w.]+)`", targets))
    return rows


RULES = allowed()


def package_of(module: str) -> str | None:
    """The most particular row that a module belongs to."""
    while module and module not in RULES:
        module = module.rpartition(".")[0]
    return module or None


def may_import(source: str, target: str) -> bool:
    """Whether the rows of both modules' packages are the same, or the source's names the target's."""
    own = package_of(source)
    assert own is not None
    name = target
    while name:
        if name == own or name in RULES[own]:
            return True
        if name in RULES and name != own:
            return False  # a row for itself: whoever may import the package around it need not import this
        name = name.rpartition(".")[0]
    return False


def test_imports_have_no_cycles() -> None:
    assert not circles(import_graph())


def test_every_module_has_a_row_in_the_table() -> None:
    assert not [module for module in import_graph() if package_of(module) is None]


def test_table_names_only_existing_modules() -> None:
    names = RULES.keys() | set().union(*RULES.values())
    assert not names - import_graph().keys()


def test_table_allows_no_cycle() -> None:
    assert not circles({package: frozenset(targets & RULES.keys()) for package, targets in RULES.items()})


@pytest.mark.parametrize("package", RULES)
def test_imports_of_a_package_are_allowed(package: str) -> None:
    modules = [module for module in import_graph() if package_of(module) == package]
    refused = [(m, t) for m in modules for t in import_graph()[m] if not may_import(m, t)]
    assert not refused


def test_every_allowed_import_is_used() -> None:
    used = {
        (package_of(module), package_of(target))
        for module, targets in import_graph().items()
        for target in targets
    }
    assert not [
        (package, target)
        for package, targets in RULES.items()
        for target in targets
        if (package, target) not in used
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from . import x", {"p.q.x"}),
        ("from ..r import x as y", {"p.r.x"}),
        ("def f():\n    from a import b", {"a.b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import d", {"typing.TYPE_CHECKING", "d"}),
    ],
)
def test_imports_of_python_are_read(text: str, names: set[str], tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(text)
    assert set(imported_names("p.q.m", path)) == names


def test_imports_of_cython_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.pyx"
    path.write_text("from a cimport b, c\ncimport d\nfrom e import (\n    f,\n    g,\n)\nimport h\n")
    assert set(imported_names("p.m", path)) == {"a.b", "a.c", "d", "e.f", "e.g", "h"}


def test_cycle_is_found() -> None:
    graph = {"a": "b", "b": "c", "c": "bd", "d": ""}
    assert circles({module: frozenset(targets) for module, targets in graph.items()}) == [["b", "c"]]


def test_compiled_modules_are_read() -> None:
    assert any(path.suffix == ".pyx" for path in sources()["engine.graph.model_runner"])
    assert import_graph()["engine.graph.model_runner"]
