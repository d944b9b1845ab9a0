"""Where downloaded model files are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server.models.cache import cache_dir


def test_cache_dir_is_the_named_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "set/ggserve"),
        ("linux", None, "home/.cache/ggserve"),
        ("darwin", None, "home/Library/Caches/ggserve"),
        ("win32", "LOCALAPPDATA", "set/ggserve"),
        ("win32", None, "home/AppData/Local/ggserve"),
    ],
)
def test_cache_dir_defaults_to_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variable: str | None, expected: str
) -> None:
    for name in ("GGSERVE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "set"))
    assert cache_dir() == tmp_path / expected
