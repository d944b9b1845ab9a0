"""An API key as the server stores it: hashed, with its client's role and limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a client may do besides managing its own requests."""

    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True)
class RateLimits:
    """A client's limits. None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True)
class Profile:
    """The attributes of a name; keys with the same name belong to one client.

    role None: a user, unless it is the only client. weight: of its share in the engine relative to other
    clients. priority: the default of its requests and the lowest number that they may ask for.
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
    """The name of a key without one: distinguishes keys in logs without revealing them."""
    return f"key-{digest.hex()[:8]}"


def plain_key(key: str) -> ApiKey:
    """A key without attributes."""
    digest = digest_of(key)
    return ApiKey(digest, Profile(default_name(digest)))
