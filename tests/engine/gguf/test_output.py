"""Output files appear whole or not at all, and never replace others unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.gguf.output import replacing, written_files


def test_replacing_shows_the_file_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    with replacing(target, force=False) as path:
        path.write_bytes(b"new")
        assert path.name == target.name
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["m.gguf"]


def test_replacing_of_an_existing_file_is_refused_without_force(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"old")
    with pytest.raises(ConfigError, match="exists already; --force"), replacing(target, force=False):
        raise AssertionError("nothing may be written")
    with replacing(target, force=True) as path:
        path.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_replacing_leaves_nothing_behind_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"old")

    def write() -> None:
        with replacing(target, force=True) as path:
            path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.gguf"]


def test_replacing_refuses_to_replace_a_part_that_appeared_meanwhile(tmp_path: Path) -> None:
    part = "m-00001-of-00002.gguf"

    def write() -> None:
        with replacing(tmp_path / "m.gguf", force=False) as path:
            path.with_name(part).write_bytes(b"new")
            (tmp_path / part).write_bytes(b"other")

    with pytest.raises(ConfigError, match=part):
        write()
    assert (tmp_path / part).read_bytes() == b"other"


def test_written_files_of_a_split_model_are_the_parts_written_last(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    old = [tmp_path / f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    new = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for time, path in enumerate([*old, *new]):
        path.write_bytes(b"x")
        os.utime(path, ns=(time, time))
    assert written_files(target) == new
    target.write_bytes(b"whole")
    assert written_files(target) == [target]


def test_replacing_of_a_split_model_moves_the_first_part_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    moved: list[str] = []
    replace = Path.replace

    def recording(self: Path, target: Path) -> Path:
        moved.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recording)
    with replacing(tmp_path / "m.gguf", force=False) as path:
        for part in parts:
            path.with_name(part).write_bytes(b"x")
    assert moved == parts[::-1]
