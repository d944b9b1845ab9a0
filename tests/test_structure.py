"""Sizes and names that keep the code readable: parameters, lines, modules, classes, what a package is for."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.import_graph import ROOT

MAX_PARAMETERS, MAX_LINES, MAX_MODULES = 6, 400, 12

# Functions with more parameters, and why.
MANY_PARAMETERS = {
    "engine/convert/converter.py:convert": "each keyword is an option of `ggserve convert`",
    "engine/convert/legacy/converter.py:convert": "each keyword is an option of `ggserve convert`",
    "engine/quantize/quantizer.py:quantize_file": "each keyword is an option of `ggserve quantize`",
    "engine/ggml/operations.pyi:flash_attention": "the parameters of ggml's operation",
    "engine/graph/model_runner.pyi:__init__": "what a model consists of on its devices, and limits",
    "engine/graph/ops/attention.pyi:op": "the parameters of the operation",
    "engine/nn/attention.py:__init__": "keywords are what architectures differ in",
    "engine/nn/feed_forward.py:__init__": "keywords are what architectures differ in",
    "engine/nn/moe.py:__init__": "keywords are what architectures differ in",
    "engine/scheduler/sequence.py:__init__": "what the scheduler knows and a sequence cannot derive",
}

# Words that say nothing about a value. (`connection_made` is asyncio's.)
PARTICIPLES = {
    *(
        "asked",
        "begun",
        "brought",
        "chosen",
        "found",
        "given",
        "gone",
        "heard",
        "kept",
        "taken",
        "told",
        "wanted",
    ),
}

# Where the system's clock, which may jump, tells a date. Whatever measures or waits takes time.monotonic.
DATES = {
    "server/api/ollama/formatter.py",
    "server/api/ollama/models.py",
    "server/api/openai/conversations/routes.py",
    "server/api/openai/responses/formatter.py",
    "server/app.py",
    "server/chat/template/render.py",
    "server/chat/template/child.py",
    "server/generation/job.py",
    "server/metrics/traces.py",
}

# Folders of like leaves, which may hold more modules.
LEAVES = (
    "engine/architectures",
    "engine/convert/huggingface",
    "server/chat/tool_calls",
    "server/cli",
)


@cache
def sources() -> dict[str, tuple[str, ast.Module]]:
    """Text and syntax tree of each Python file, by its path."""
    paths = [
        path
        for package in ("engine", "server")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.relative_to(ROOT).parts[:2] != ("engine", "lib")
    ]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def functions() -> Iterator[tuple[str, list[str]]]:
    """(FILE:NAME, its parameters) of all functions and methods; of compiled ones from their stubs."""
    stubs = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "engine").rglob("*.pyi"))
    }
    for path, tree in ({path: tree for path, (_, tree) in sources().items()} | stubs).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [argument.arg for argument in arguments]
                yield f"{path}:{node.name}", [name for name in names if name not in ("self", "cls")]


def modules(folder: Path) -> list[str]:
    return [p.stem for p in folder.iterdir() if p.suffix in (".py", ".pyx") and p.stem != "__init__"]


def test_every_function_has_few_parameters_or_a_reason() -> None:
    many = {name for name, parameters in functions() if len(parameters) > MAX_PARAMETERS}
    assert many == set(MANY_PARAMETERS)


def names(tree: ast.Module) -> Iterator[str]:
    """Of everything that a file names: variables, attributes, parameters, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name


def test_names_contain_no_participles() -> None:
    trees = {path: tree for path, (_, tree) in sources().items()}
    assert not [(path, n) for path in trees for n in names(trees[path]) if PARTICIPLES & set(n.split("_"))]


def test_names_in_tests_are_no_participles() -> None:
    """Names of tests are sentences, in which such a word may stand."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    word = re.compile(rf"\b({'|'.join(PARTICIPLES)})\b", re.I)  # parsing all files would take seconds
    trees = {path: ast.parse(text) for path, text in texts.items() if word.search(text)}
    assert not [(p.name, n) for p, tree in trees.items() for n in names(tree) if n.lower() in PARTICIPLES]


def test_no_file_is_too_long() -> None:
    lengths = {path: text.count("\n") for path, (text, _) in sources().items()}
    lengths |= {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / "engine").rglob("*.pyx")
    }
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_wall_clock_is_used_only_for_dates() -> None:
    clock = re.compile(r"\btime\.time(_ns)?\b(?!\(\)`)|\bdatetime\.(now|today|utcnow)\b")
    assert {path for path, (text, _) in sources().items() if clock.search(re.sub("#.*", "", text))} == DATES


def test_every_package_has_few_modules() -> None:
    folders = {str(Path(path).parent) for path in sources()}
    assert {f for f in folders if len(modules(ROOT / f)) > MAX_MODULES} == set(LEAVES)


def test_every_support_folder_has_few_modules() -> None:
    support = ROOT / "tests" / "support"
    folders = [support, *(path for path in support.rglob("*") if path.is_dir())]
    assert [str(f) for f in folders if len(modules(f)) > MAX_MODULES] == []


def test_every_import_of_support_exists() -> None:
    """Says at once, before collection fails, that a test names a module that has moved."""
    support = ROOT / "tests" / "support"
    absent = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^ *from support\.([\w.]+) import", path.read_text(encoding="utf-8"), re.M)
        if not any((support / name.replace(".", "/")).with_suffix(suffix).exists() for suffix in (".py", ""))
    }
    assert absent == set()


def test_graphs_hardly_use_any() -> None:
    folders = ("engine/architectures/", "engine/nn/", "engine/graph/")
    texts = [text for path, (text, _) in sources().items() if path.startswith(folders)]
    uses = [line for text in texts for line in text.splitlines() if re.search(r"^(?!from ).*\bAny\b", line)]
    assert len(uses) < 10, uses


def test_every_class_name_is_unique() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for path, (_, tree) in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(path)
    assert {name for name, paths in files.items() if len(paths) > 1} == set()


def test_every_package_has_a_docstring() -> None:
    silent = {
        str(Path(path).parent)
        for path, (_, tree) in sources().items()
        if Path(path).name == "__init__.py" and not ast.get_docstring(tree)
    }
    assert silent == set()
