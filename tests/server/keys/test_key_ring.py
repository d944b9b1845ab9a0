"""Which clients there are, and what a changed key file does."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from pydantic import SecretStr

from engine.errors import ConfigError
from server.keys import key_ring
from server.keys.api_key import digest_of
from server.keys.key_file import read_key_file
from server.keys.key_ring import KeyRing
from support.waiting import until


def ring(path, text, *keys) -> KeyRing:
    path.write_text(text)
    path.chmod(0o600)
    return KeyRing([SecretStr(key) for key in keys], path)


def test_ring_without_keys_has_one_client_with_every_right():
    keys = KeyRing()
    assert not keys.required
    assert keys.anonymous.name is None
    assert keys.anonymous.is_admin
    assert keys.find(digest_of("")) is None


def test_keys_of_both_sources_find_their_clients(tmp_path):
    keys = ring(tmp_path / "keys", f"sha256:{digest_of('b').hex()} name=bob\nb2 name=bob\n", "a")
    assert keys.required
    assert keys.find(digest_of("b")).name == "bob"
    assert keys.find(digest_of("b2")) is keys.find(digest_of("b"))
    assert keys.find(digest_of("a")).name == f"key-{digest_of('a').hex()[:8]}"
    assert keys.find(digest_of("c")) is None


def test_the_only_client_is_an_admin_unless_its_line_says_otherwise(tmp_path):
    file = tmp_path / "keys"
    assert ring(file, "a\n").find(digest_of("a")).is_admin
    assert not ring(file, "a role=user\n").find(digest_of("a")).is_admin
    two = ring(file, "a\nb role=admin\n")
    assert not two.find(digest_of("a")).is_admin
    assert two.find(digest_of("b")).is_admin
    assert not any(client.is_admin for client in ring(file, "a\nb\n").clients)


def test_a_client_sees_its_own_requests_and_an_admin_those_of_all(tmp_path):
    keys = ring(tmp_path / "keys", "a name=a\nb name=b\nc name=c role=admin\n")
    a, admin = keys.find(digest_of("a")), keys.find(digest_of("c"))
    assert [a.may_see(owner) for owner in ("a", "b", None)] == [True, False, False]
    assert [admin.may_see(owner) for owner in ("a", "b", None)] == [True, True, True]


def test_reload_adds_and_removes_keys_and_keeps_clients(tmp_path):
    file = tmp_path / "keys"
    keys = ring(file, "a name=a\nb name=b\n")
    b = keys.find(digest_of("b"))
    file.write_text("b2 name=b role=admin\nc\n")
    keys.reload()
    assert keys.find(digest_of("a")) is None
    assert keys.find(digest_of("b")) is None
    assert keys.find(digest_of("b2")) is b
    assert b.is_admin
    assert keys.find(digest_of("c"))


@pytest.mark.parametrize("text", ["", "a name=x\na name=y\n", None])
def test_unusable_file_leaves_the_keys_unchanged(tmp_path, text, caplog):
    file = tmp_path / "keys"
    keys = ring(file, "a\n")
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with pytest.raises(ConfigError):
        keys.reload()
    assert not keys.reload_or_log()
    assert "stay in use" in caplog.text
    assert keys.find(digest_of("a"))


@pytest.mark.parametrize(
    ("mode", "text", "warns"),
    [
        (0o600, "a", False),
        (0o644, "a", True),
        (0o640, "a", True),
        (0o644, f"sha256:{digest_of('a').hex()}", False),
    ],
)
def test_plain_keys_readable_by_others_get_a_warning(tmp_path, caplog, mode, text, warns):
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    KeyRing([], file)
    assert ("chmod 600" in caplog.text) is warns


@pytest.mark.asyncio
async def test_changed_file_is_read_again(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(key_ring, "POLL_S", 0.001)
    file = tmp_path / "keys"
    keys = ring(file, "a\n")
    watching = asyncio.create_task(keys.watch())
    file.write_text("# being edited\n")
    await until(lambda: "stay in use" in caplog.text)
    assert keys.find(digest_of("a"))
    other = tmp_path / "new"
    other.write_text("b\n")
    other.chmod(0o600)
    other.replace(file)
    await until(lambda: keys.find(digest_of("b")))
    assert keys.find(digest_of("a")) is None
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert caplog.text.count("stay in use") == 1


def test_file_removed_while_being_read_does_not_end_the_watch(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("one\n")
    ring = KeyRing(file=file)

    def read(path):
        lines = read_key_file(path)
        path.unlink()
        return lines

    monkeypatch.setattr("server.keys.key_ring.read_key_file", read)
    assert ring.reload_or_log()
