"""Ollama's store as it lies on the disk, whole and damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from server.models.errors import DownloadError, ModelNotFound
from server.models.stores import ollama

MODEL = "application/vnd.ollama.image.model"
DATA = b"GGUF and so on"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"sha256-{DIGEST}").write_bytes(DATA)
    return tmp_path


def add(store: Path, path: str, document: Any = None) -> Path:
    manifest = store / "manifests" / path
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64, "size": 1},
        {"mediaType": MODEL, "digest": f"sha256:{DIGEST}", "size": len(DATA)},
    ]
    manifest.write_text(json.dumps(document if document is not None else {"layers": layers}))
    return manifest


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", ["llama3.2", "llama3.2:latest", "library/llama3.2"]),
        ("registry.ollama.ai/library/qwen3/8b", ["qwen3:8b"]),
        ("registry.ollama.ai/me/mine/latest", ["me/mine", "me/mine:latest"]),
        ("hf.co/a/b-GGUF/Q4_K_M", ["hf.co/a/b-GGUF:Q4_K_M"]),
        ("localhost:5000/a/b/latest", ["localhost:5000/a/b", "localhost:5000/a/b:latest"]),
    ],
)
def test_a_model_is_found_under_its_names(store: Path, path: str, names: list[str]) -> None:
    add(store, path)
    (model,) = ollama.list_models()
    assert (model.size, model.digest, model.path.read_bytes()) == (len(DATA), DIGEST, DATA)
    for name in [*names, model.name.removeprefix("ollama:")]:
        assert ollama.find(name) == model


def test_unknown_name_is_refused_with_a_list_of_the_known(store: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"has no qwen3; it is empty\. Pull .* with `ollama pull qwen3`"):
        ollama.find("qwen3")
    add(store, "registry.ollama.ai/library/qwen3/8b")
    with pytest.raises(ModelNotFound, match=r"has no qwen3; it has ollama:qwen3:8b\."):
        ollama.find("qwen3")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"layers": []}, "has no weights on this machine"),
        ({}, "cannot be read; repair it with `ollama pull x:latest`"),
        ([], "cannot be read"),
        ({"layers": [{"mediaType": MODEL, "digest": "sha256:../../etc/passwd"}]}, "cannot be read"),
        ({"layers": [{"mediaType": MODEL, "digest": 5}]}, "cannot be read"),
        ({"layers": [{"mediaType": MODEL, "digest": "sha256:" + "1" * 64}]}, "is missing; repair it"),
        ({"layers": [{"mediaType": MODEL, "digest": f"sha256:{DIGEST}"}] * 2}, "cannot be read"),
    ],
)
def test_damaged_manifest_is_reported_and_hides_only_its_model(
    store: Path, document: Any, message: str
) -> None:
    add(store, "registry.ollama.ai/library/x/latest", document)
    add(store, "registry.ollama.ai/library/y/latest")
    assert [model.name for model in ollama.list_models()] == ["ollama:y:latest"]
    with pytest.raises(DownloadError, match=message):
        ollama.find("x")


def test_a_manifest_that_is_not_text_or_too_large_is_refused(store: Path) -> None:
    manifest = add(store, "registry.ollama.ai/library/x/latest")
    for data in (b"\xff\xfe", b" " * (2 << 20)):
        manifest.write_bytes(data)
        with pytest.raises(DownloadError, match=r"cannot be read|is not a manifest"):
            ollama.find("x")
    assert list(ollama.list_models()) == []


def test_default_stores_are_the_users_and_the_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert ollama.folders()[0] == tmp_path / ".ollama" / "models"
    assert list(ollama.list_models()) == []


def test_pipe_in_place_of_a_manifest_is_not_read(store: Path) -> None:
    manifest = add(store, "registry.ollama.ai/library/x/latest")
    manifest.unlink()
    os.mkfifo(manifest)
    add(store, "registry.ollama.ai/library/y/latest")
    assert [model.name for model in ollama.list_models()] == ["ollama:y:latest"]
