"""The model that needs no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models import bundled


def test_bundled_model_is_a_gguf_file() -> None:
    assert bundled.bundled_model().read_bytes()[:4] == b"GGUF"


def test_bundled_model_next_to_the_package_comes_before_that_of_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bundled, "__file__", str(tmp_path / "server" / "models" / "bundled.py"))
    with pytest.raises(FileNotFoundError, match="reinstall ggserve or choose a model with --model"):
        bundled.bundled_model()
    for folder in (tmp_path / "models", tmp_path / "server" / "models"):
        folder.mkdir(parents=True)
        (folder / bundled.NAME).touch()
        assert bundled.bundled_model() == folder / bundled.NAME
