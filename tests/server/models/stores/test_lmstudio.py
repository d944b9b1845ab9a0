"""LM Studio's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models.errors import ModelNotFound
from server.models.stores import lmstudio


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def add(home: Path, *names: str, folder: str = ".lmstudio/models") -> None:
    for name in names:
        path = home / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")


def test_models_of_both_folders_are_listed_without_projectors(home: Path) -> None:
    add(home, "me/A-GGUF/A-Q4_K_M.gguf", "me/A-GGUF/mmproj-A-F16.gguf")
    add(home, "me/B-GGUF/B-Q8_0-00001-of-00002.gguf", "me/B-GGUF/B-Q8_0-00002-of-00002.gguf")
    add(home, "old/C/C.gguf", folder=".cache/lm-studio/models")
    assert [(model.name, model.size) for model in lmstudio.list_models()] == [
        ("lmstudio:me/A-GGUF/A-Q4_K_M.gguf", 4),
        ("lmstudio:me/B-GGUF/B-Q8_0-00001-of-00002.gguf", 8),
        ("lmstudio:old/C/C.gguf", 4),
    ]


def test_a_model_is_found_by_its_file_or_its_repository(home: Path) -> None:
    add(home, "me/A-GGUF/A-Q4_K_M.gguf", "me/B-GGUF/B-Q4_K_M.gguf", "me/B-GGUF/B-Q8_0.gguf")
    path = home / ".lmstudio" / "models" / "me" / "A-GGUF" / "A-Q4_K_M.gguf"
    assert lmstudio.find("me/A-GGUF").path == lmstudio.find("me/A-GGUF/A-Q4_K_M.gguf").path == path
    with pytest.raises(ModelNotFound, match=r"holds several models: .*B-Q4_K_M\.gguf, .*B-Q8_0\.gguf"):
        lmstudio.find("me/B-GGUF")


def test_unknown_model_is_refused_with_a_list_of_the_known(home: Path) -> None:
    with pytest.raises(ModelNotFound, match="has no me/A; it is empty"):
        lmstudio.find("me/A")
    add(home, "me/A-GGUF/A-Q4_K_M.gguf")
    with pytest.raises(ModelNotFound, match=r"has no me/A; it has me/A-GGUF/A-Q4_K_M\.gguf"):
        lmstudio.find("me/A")
