"""Whether a model file is still the one that was loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.worker import model_file
from server.worker.model_file import ModelFile


@pytest.fixture(autouse=True)
def short_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "HEADER", 1000)
    monkeypatch.setattr(model_file, "SAMPLE", 16)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def loaded(path: Path) -> ModelFile:
    file = ModelFile(path)
    file.read()
    return file


DATA = bytes(range(256)) * 100


def rewrite(path: Path) -> None:
    write(path, DATA)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def exchange(path: Path) -> None:
    write(path.with_suffix(".new"), DATA).replace(path)


@pytest.mark.parametrize("change", [rewrite, touch, exchange])
def test_same_contents_are_the_same_model(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write(tmp_path / "m.gguf", DATA)
    file = loaded(path)
    assert file.is_same()
    change(path)
    assert file.is_same()
    assert file.is_same()


@pytest.mark.parametrize("place", [0, 999, 1000, len(DATA) // 2])
def test_other_contents_of_the_same_size_are_noticed(tmp_path: Path, place: int) -> None:
    path = write(tmp_path / "m.gguf", DATA)
    file = loaded(path)
    # as a fine-tuned model differs: nearly everywhere
    other = DATA[:place] + bytes(255 - byte for byte in DATA[place:])
    write(tmp_path / "new", other).replace(path)
    assert not file.is_same()


def test_file_of_another_size_or_missing_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", DATA)
    file = loaded(path)
    write(path, DATA[:-1])
    assert not file.is_same()
    path.unlink()
    assert not file.is_same()
    write(path, DATA)  # it is back
    assert file.is_same()


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"m-0000{n}-of-00002.gguf", DATA) for n in (1, 2)]
    file, folder = loaded(parts[0]), loaded(tmp_path)
    assert file.is_same()
    write(parts[1], DATA[::-1])
    os.utime(parts[1], (1, 1))
    assert not file.is_same()
    assert not folder.is_same()


def test_file_that_was_always_missing_is_unchanged(tmp_path: Path) -> None:
    assert loaded(tmp_path / "absent.gguf").is_same()


def test_file_without_a_fingerprint_is_compared_by_time(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", DATA)
    file = ModelFile(path)
    assert file.is_same()
    touch(path)
    assert not file.is_same()
