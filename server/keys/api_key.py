"""An API key as the server holds it: hashed, with what its client may do and use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a client may do beside its own requests."""

    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True)
class RateLimits:
    """None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True)
class Profile:
    """What belongs to a name; keys with the same name are one client.

    role None: a user, unless it is the only client. weight: of its share in the engine beside other clients'.
    priority: of its requests, as long as they do not ask for a lower one (a higher number).
    """

    name: str
    role: Role | None = None
    limits: RateLimits = RateLimits()
    weight: int = 1
    priority: int = 0


@dataclass(frozen=True)
class ApiKey:
    """digest: SHA-256 of the key."""

    digest: bytes
    profile: Profile


def digest_of(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def default_name(digest: bytes) -> str:
    """Of a key without a name: tells it apart in logs without giving it away."""
    return f"key-{digest.hex()[:8]}"


def plain_key(key: str) -> ApiKey:
    """A key without attributes."""
    digest = digest_of(key)
    return ApiKey(digest, Profile(default_name(digest)))
