"""Which module imports which: read from the sources, with imports in functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "server")
Graph = Mapping[str, frozenset[str]]

_CYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<module>[\w.]+)[ \t]+c?import[ \t]+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|c?import[ \t]+(?P<whole>[\w.]+))",
    re.MULTILINE,
)


def sources() -> dict[str, list[Path]]:
    """The files of each module: a compiled one has a .pyx, a .pxd or both. Stubs (.pyi) only repeat those."""
    modules: dict[str, list[Path]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".pyx", ".pxd"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                modules.setdefault(name, []).append(path)
    return modules


def imported_names(module: str, path: Path) -> Iterator[str]:
    """Absolute names that a file imports: of modules, or of what is in them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".pyx", ".pxd"):
        for match in _CYTHON.finditer(text):
            if match["whole"]:
                yield match["whole"]
            else:
                yield from (f"{match['module']}.{name}" for name in re.findall(r"\w+", match["names"]))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def import_graph() -> Graph:
    """Module → modules of ours that it imports. That a package is imported with its parts is not counted."""
    modules = sources()

    def module_of(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    graph = {}
    for module, paths in modules.items():
        names = {name for path in paths for name in imported_names(module, path)}
        graph[module] = frozenset({module_of(name) for name in names} - {"", module})
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """The modules of each circle, by Tarjan's algorithm for strongly connected components."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    collected: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            at = stack.index(module)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                collected.append(sorted(component))

    for module in graph:
        if module not in order:
            visit(module)
    return sorted(collected)
