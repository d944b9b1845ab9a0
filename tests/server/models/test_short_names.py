"""Short names: those that are shipped, and the user's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server.models.errors import DownloadError
from server.models.reference import DEFAULT
from server.models.short_names import expand, short_names, user_file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "models.yml"
    monkeypatch.setenv("GGSERVE_MODELS_FILE", str(path))
    return path


@pytest.mark.usefixtures("file")
def test_shipped_names_have_a_repository_and_a_licence() -> None:
    names = short_names()
    assert names["qwen3-8b"].repository == "Qwen/Qwen3-8B-GGUF"
    assert all(name == name.lower() and short.licence for name, short in names.items())


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("qwen3-8b", "hf:Qwen/Qwen3-8B-GGUF"),
        ("Qwen3-8B:Q8_0", "hf:Qwen/Qwen3-8B-GGUF:Q8_0"),
        ("qwen3-8b.gguf", "qwen3-8b.gguf"),
        ("unknown", "unknown"),
        ("a/b", "a/b"),
        (DEFAULT, DEFAULT),
        ("hf.co/a/b:Q8_0", "hf:a/b:Q8_0"),
        ("https://huggingface.co/a/b", "hf:a/b"),
        ("ollama:hf.co/a/b", "ollama:hf.co/a/b"),
    ],
)
def test_a_short_name_or_an_address_stands_for_a_repository(name: str, reference: str) -> None:
    assert expand(name) == reference


def test_users_names_take_precedence_immediately(file: Path) -> None:
    file.write_text(
        "qwen3-8b: hf:me/Other-GGUF:Q6_K\nmine: {repository: me/Mine, licence: mit}\ntagged:1b: me/Tagged-1B"
    )
    assert (expand("qwen3-8b"), expand("mine")) == ("hf:me/Other-GGUF:Q6_K", "hf:me/Mine")
    assert expand("qwen3-8b:Q2_K") == "hf:me/Other-GGUF:Q2_K"
    assert expand("tagged:1b") == "hf:me/Tagged-1B"
    assert short_names()["mine"].licence == "mit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", "expected lines such as `name: OWNER/REPO`"),
        ("x: 5", "5 does not name a repository"),
        ("x: {licence: mit}", "does not name a repository"),
        ("x: nowhere", "must be hf:OWNER/REPO"),
        ("x: [", "models.yml: "),
    ],
)
def test_invalid_file_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(DownloadError, match=message):
        expand("x")


def test_users_file_is_in_the_settings_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GGSERVE_MODELS_FILE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_file() == tmp_path / "ggserve" / "models.yml"
