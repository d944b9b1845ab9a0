"""The file of --api-key-file: one key per line, then what its client may do.

# KEY or sha256:HASH, then attributes
sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae name=ops role=admin
a-plain-key name=batch rpm=60 tpm=50000 concurrency=4 priority=10
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from engine.config import MAX_PRIORITY, MAX_WEIGHT
from engine.errors import ConfigError
from server.keys.api_key import ApiKey, Profile, RateLimits, Role, default_name, digest_of

HASH_PREFIX = "sha256:"
_HASH = re.compile("[0-9a-fA-F]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MOST = 10**9


class KeyLine(NamedTuple):
    """secret None: the file contains only the hash."""

    secret: str | None
    key: ApiKey


def read_key_file(path: Path) -> list[KeyLine]:
    """The lines of a file. Raises ConfigError, which never repeats a key, for an invalid file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"--api-key-file {path}: {reason}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(read_line(line))
            except ValueError as error:
                raise ConfigError(f"--api-key-file {path}, line {number}: {error}") from error
    if not keys:  # a file emptied by mistake must not open the server to everyone
        raise ConfigError(f"--api-key-file {path}: contains no key")
    try:
        check_profiles([line.key for line in keys])
    except ValueError as error:
        raise ConfigError(f"--api-key-file {path}: {error}") from error
    return keys


def check_profiles(keys: list[ApiKey]) -> None:
    """Raises ValueError if a key belongs to two names, or if two keys of a name have different attributes."""
    names: dict[bytes, str] = {}
    profiles: dict[str, Profile] = {}
    for key in keys:
        profile = key.profile
        if names.setdefault(key.digest, profile.name) != profile.name:
            raise ValueError(f"{names[key.digest]!r} and {profile.name!r} have the same key")
        if profiles.setdefault(profile.name, profile) != profile:
            raise ValueError(f"the keys of {profile.name!r} have different attributes; give all the same")


def read_line(line: str) -> KeyLine:
    """One line. Raises ValueError, which never repeats a key, if it is invalid."""
    key, *attributes = line.split()
    secret = None if key.startswith(HASH_PREFIX) else key
    if secret is None:
        if not _HASH.fullmatch(key.removeprefix(HASH_PREFIX)):
            raise ValueError(f"{HASH_PREFIX} must be followed by 64 hexadecimal digits")
        digest = bytes.fromhex(key.removeprefix(HASH_PREFIX))
    else:
        digest = digest_of(secret)
    values: dict[str, Any] = {}
    for word in attributes:
        name, equals, text = word.partition("=")
        if not equals or name not in _ATTRIBUTES:
            names = ", ".join(f"{name}=" for name in _ATTRIBUTES)
            raise ValueError(f"attributes after the key must be among {names}")  # it may be part of a key
        if name in values:
            raise ValueError(f"{name} is given twice")
        try:
            values[name] = _ATTRIBUTES[name](text)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return KeyLine(secret, ApiKey(digest, _profile(values, default_name(digest))))


def _profile(values: Mapping[str, Any], name: str) -> Profile:
    return Profile(
        values.get("name", name),
        values.get("role"),
        RateLimits(values.get("rpm"), values.get("tpm"), values.get("concurrency")),
        values.get("weight", 1),
        values.get("priority", 0),
    )


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("must be at most 64 letters, digits, dots, -, _ and @")
    return text


def _role(text: str) -> Role:
    if text not in list(Role):
        raise ValueError(f"must be {' or '.join(Role)}")
    return Role(text)


def _number(text: str, least: int = 1, most: int = _MOST) -> int:
    with contextlib.suppress(ValueError):
        number = int(text)
        if least <= number <= most:
            return number
    raise ValueError(f"must be a whole number from {least} to {most}")


_ATTRIBUTES: dict[str, Callable[[str], Any]] = {
    "name": _name,
    "role": _role,
    "rpm": _number,
    "tpm": _number,
    "concurrency": _number,
    "weight": partial(_number, most=MAX_WEIGHT),
    "priority": partial(_number, least=-MAX_PRIORITY, most=MAX_PRIORITY),
}
