"""From a name to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models import resolver, wheel
from server.models.bundled import bundled_model
from server.models.reference import BUNDLED, DEFAULT


def test_a_path_stays_as_it_is(tmp_path: Path) -> None:
    assert resolver.resolve(str(tmp_path / "absent.gguf")) == tmp_path / "absent.gguf"


def test_a_file_called_like_a_short_name_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).touch()
    assert resolver.resolve(DEFAULT) == Path(DEFAULT)


def test_the_bundled_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolver.resolve(BUNDLED) == bundled_model()


def test_the_default_model_is_the_file_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))
    wheel.SMOLLM2.target.mkdir(parents=True)
    assert resolver.resolve(DEFAULT) == wheel.SMOLLM2.target / "SmolLM2-135M-Instruct.Q4_1.gguf"
