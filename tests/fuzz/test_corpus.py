"""Inputs that a fuzzer found worth keeping: all are refused, or are as good as sound files."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import CORPUS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_inputs_are_refused_or_read(name: str) -> None:
    paths = sorted((CORPUS / name).iterdir())
    outcomes = []
    for path in paths:
        try:
            outcomes.append(TARGETS[name](path.read_bytes()))
        except BaseException as error:
            error.add_note(f"with {path.name}")
            raise
    assert True in outcomes
    assert False in outcomes
    assert len(paths) >= 10
    assert sum(map(_size, paths)) < 1 << 20


def _size(path: Path) -> int:
    return path.stat().st_size
