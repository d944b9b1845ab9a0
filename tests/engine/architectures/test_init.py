"""An architecture is a file: found by its name, short, and independent of how models are converted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from engine import architectures
from engine.errors import UnsupportedModelError

FILES = sorted(path for path in Path(architectures.__file__).parent.glob("*.py") if path.stem != "__init__")
MAX_LINES = 60


@pytest.mark.parametrize("name", architectures.names())
def test_an_architecture_is_found_by_its_name(name: str) -> None:
    architecture = architectures.get(name)
    assert architecture.name == name
    assert architecture.__module__ == f"engine.architectures.{architectures.module_name(name)}"


@pytest.mark.parametrize("name", ["gptnext", "gpt_oss", "", "os"])
def test_an_unknown_architecture_is_refused_with_a_list_of_the_supported(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{name!r}.*not supported.*gpt-oss, .*llama, "):
        architectures.get(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_architecture_file_is_short_and_imports_no_converter(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    imported = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith("engine.convert")]
