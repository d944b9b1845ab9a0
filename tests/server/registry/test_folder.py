"""Which models are in a folder, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.registry.folder import models_in


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_of(folder: Path) -> dict[str, str]:
    return {name: str(path.relative_to(folder)) for name, path in models_in(folder).items()}


def test_files_and_subfolders_are_models(tmp_path: Path) -> None:
    make(tmp_path, "b.gguf", "a.Q4_K_M.gguf", "sub/x.gguf", "empty/readme", "notes.txt", "c.gguf.part")
    assert names_of(tmp_path) == {"a.Q4_K_M": "a.Q4_K_M.gguf", "b": "b.gguf", "sub": "sub/x.gguf"}


def test_a_split_model_counts_once_by_its_first_part(tmp_path: Path) -> None:
    parts = [f"m-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    make(tmp_path, *parts, *(f"sub/{part}" for part in parts))
    assert names_of(tmp_path) == {"m": "m-00001-of-00003.gguf", "sub": "sub/m-00001-of-00003.gguf"}


def test_several_models_in_a_subfolder_have_its_name_as_prefix(tmp_path: Path) -> None:
    make(tmp_path, "sub/x.gguf", "sub/y.gguf", "sub/mmproj-F16.gguf", "sub/.hidden.gguf")
    assert names_of(tmp_path) == {"sub/x": "sub/x.gguf", "sub/y": "sub/y.gguf"}


def test_file_and_subfolder_of_one_name_are_two_models(tmp_path: Path) -> None:
    make(tmp_path, "m.gguf", "m/x.gguf")
    assert names_of(tmp_path) == {"m": "m.gguf", "m/x": "m/x.gguf"}


def test_links_are_followed_and_broken_ones_are_not_models(tmp_path: Path) -> None:
    make(tmp_path, "store/x.gguf")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").symlink_to(tmp_path / "store" / "x.gguf")
    (tmp_path / "models" / "b.gguf").symlink_to(tmp_path / "absent.gguf")
    (tmp_path / "models" / "c").symlink_to(tmp_path / "store")
    (tmp_path / "models" / "d").symlink_to(tmp_path / "models" / "d")
    assert [*models_in(tmp_path / "models")] == ["a", "c"]


def test_names_no_client_could_send_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a\nb.gguf", "c.gguf", "x" * 240 + ".gguf")
    assert [*models_in(tmp_path)] == ["c"]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        models_in(tmp_path / "absent")
