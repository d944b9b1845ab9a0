"""What a line of the key file means, and which are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from server.keys.api_key import Profile, RateLimits, Role, digest_of
from server.keys.key_file import read_key_file, read_line
from support.quick import examples

HASH = digest_of("sesame").hex()


def test_line_with_only_a_key_makes_a_user_without_limits():
    line = read_line("  sesame ")
    assert line.secret == "sesame"
    assert line.key.digest.hex() == HASH
    assert line.key.profile == Profile(f"key-{HASH[:8]}")


def test_a_hash_stands_for_its_key_and_attributes_follow():
    line = read_line(f"sha256:{HASH.upper()} name=alice role=admin rpm=60 tpm=50000 concurrency=4")
    assert line.secret is None
    assert line.key.digest.hex() == HASH
    assert line.key.profile == Profile("alice", Role.ADMIN, RateLimits(60, 50000, 4))


def test_line_sets_priority_and_share_of_its_client():
    assert read_line("sesame name=batch weight=3 priority=10").key.profile == Profile(
        "batch", weight=3, priority=10
    )
    assert read_line("sesame priority=-1000").key.profile.priority == -1000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sha256:abc", "64 hexadecimal"),
        (f"sha256:{HASH}0", "64 hexadecimal"),
        ("secret-1 secret-2", "must be among name="),
        ("secret-1 secret=2", "must be among name="),
        ("secret-1 rmp=60", "must be among name="),
        ("secret-1 rpm=60 rpm=61", "twice"),
        ("secret-1 rpm=0", "whole number from 1"),
        ("secret-1 rpm=1.5", "whole number"),
        ("secret-1 tpm=", "whole number"),
        ("secret-1 weight=0", "whole number from 1 to 1000"),
        ("secret-1 priority=-1001", "whole number from -1000 to 1000"),
        ("secret-1 role=root", "user or admin"),
        ("secret-1 name=a/b", "letters, digits"),
    ],
)
def test_invalid_line_is_refused_by_number_without_showing_the_key(tmp_path, line, reason):
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\ngood\n{line}\n")
    with pytest.raises(ConfigError, match=reason) as caught:
        read_key_file(file)
    assert "line 4" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# none yet\n", "contains no key"),
        ("a name=x\na name=y\n", "'x' and 'y' have the same key"),
        ("a name=x rpm=1\nb name=x\n", "'x' have different attributes"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_unusable_file_is_refused(tmp_path, text, reason):
    file = tmp_path / "keys"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=reason):
        read_key_file(file)


def test_duplicate_keys_and_two_keys_of_one_client_are_accepted(tmp_path):
    file = tmp_path / "keys"
    file.write_text("a\na\nold name=x rpm=1\nnew name=x rpm=1\n")
    assert [line.key.profile.name[:4] for line in read_key_file(file)] == ["key-", "key-", "x", "x"]


@examples(200)
@given(st.text())
def test_any_line_is_accepted_or_refused(line):
    if line.split():
        with contextlib.suppress(ValueError):
            assert len(read_line(line).key.digest) == 32
