"""`ggserve list`: a table for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from server.cli import list as subject
from server.models.stored import Source, StoredModel

MODELS = [
    StoredModel("stories", "bundled", Path("/a/stories.gguf"), 3_000_000, None, 1.5),
    StoredModel("hf:me/Tales-GGUF:Q4_K_M", "hub", Path("/b.gguf"), 98_000_000, "ab", 2.0),
]


def test_every_source_has_a_description() -> None:
    assert set(subject.SOURCES) == set(get_args(Source))


def test_table_is_aligned() -> None:
    assert subject.table(MODELS).splitlines() == [
        "NAME                      SIZE  SOURCE",
        "stories                   3 MB  bundled",
        "hf:me/Tales-GGUF:Q4_K_M  98 MB  Hugging Face cache",
    ]


def test_control_characters_in_file_names_are_not_printed() -> None:
    model = StoredModel("lmstudio:a/b/\x1b]0;x\x07\udcffü.gguf", "lmstudio", Path("/c.gguf"), 1, None, 1.0)
    assert "lmstudio:a/b/\ufffd]0;x\ufffd\ufffdü.gguf " in subject.table([model])


def test_json_has_paths_and_checksums(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subject, "list_models", lambda: MODELS)
    assert subject.run(["--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["path"], first["sha256"]) == ("stories", "/a/stories.gguf", None)
    assert (second["source"], second["size"], second["modified"]) == ("hub", 98_000_000, 2.0)
