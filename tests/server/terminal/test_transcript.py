"""Conversations on disk: read back as written, and files of anyone refused by what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, StorageError
from server.terminal import transcript as module
from server.terminal.transcript import Transcript, cache_path, transcript_path

SAVED: dict[str, Any] = {
    "format": "ggserve-chat",
    "version": 1,
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}


def test_a_saved_conversation_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    conversation = Transcript("Be brief.")
    conversation.add("user", 'Grüße, "\n\x1b\u2028')
    conversation.add("assistant", "")
    conversation.save(path, "m")
    assert Transcript.load(path).messages() == conversation.messages()
    assert os.listdir(tmp_path) == ["talk.json"]


def test_file_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.json"
    Transcript("first").save(path, "m")

    def fail(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        Transcript("second").save(path, "m")
    assert Transcript.load(path).system == "first"
    assert os.listdir(tmp_path) == ["talk.json"]


@pytest.mark.parametrize("name", ["absent/talk.json", "a\0b.json"])
def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="cannot be saved"):
        Transcript().save(tmp_path / name, "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not a saved conversation"),
        ({"version": 2}, "is not a saved conversation"),
        ({"more": 1}, "is not a saved conversation"),
        ({"messages": {}}, "is not a saved conversation"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "is not a saved conversation"),
        ({"messages": [{"role": "user", "content": None}]}, "is not a saved conversation"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "message 1 has the role assistant"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message has no answer"),
        ({"messages": SAVED["messages"] + SAVED["messages"][1:]}, "message 3 has the role assistant"),
        ({"messages": [{"role": "system", "content": "x"}] * 2}, "message 1 has the role system"),
    ],
)
def test_file_that_is_not_a_conversation_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(SAVED))
    assert len(Transcript.load(path).turns) == 2
    path.write_text(json.dumps({**SAVED, **change}))
    with pytest.raises(ConfigError, match=message):
        Transcript.load(path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "\xff"}', b"null"])
def test_files_of_other_programs_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is not a saved conversation"):
        Transcript.load(path)


def test_missing_special_or_oversized_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        Transcript.load(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is not a regular file"):
        Transcript.load(tmp_path)
    with pytest.raises(ConfigError, match="is not a regular file"):
        Transcript.load(Path("/dev/zero"))
    path = tmp_path / "large.json"
    path.write_text(json.dumps(SAVED))
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="has at most"):
        Transcript.load(path)


def test_file_names_get_their_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert transcript_path("talk") == Path("talk.json")
    assert transcript_path("~/a.b") == Path("/home/someone/a.b")
    assert cache_path(Path("x/talk.json")) == Path("x/talk.session")
    assert cache_path(Path("talk.session")) == Path("talk.session.cache")


@pytest.mark.parametrize("text", ["~nobody-of-this-name/talk", "/", ".", ".."])
def test_names_that_are_not_files_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no such user|is a folder"):
        transcript_path(text)
