"""Keys as the server holds them."""

from __future__ import annotations

import hashlib

from server.keys.api_key import digest_of, plain_key


def test_key_is_kept_as_its_hash_and_its_name_does_not_reveal_it():
    key = plain_key("sesame")
    assert key.digest == hashlib.sha256(b"sesame").digest() == digest_of(b"sesame")
    assert "sesame" not in repr(key)
    assert key.profile.name == f"key-{key.digest.hex()[:8]}"
