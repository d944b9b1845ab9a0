"""The public names, and the stub that declares them."""

from __future__ import annotations

import ast
from pathlib import Path

import engine


def test_every_public_name_resolves() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)


def test_the_stub_declares_the_same_names() -> None:
    stub = ast.parse(Path(engine.__file__).with_suffix(".pyi").read_text())
    imported = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(engine.__all__)
