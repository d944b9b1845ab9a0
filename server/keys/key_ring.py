"""All API keys of the server, and their clients. The file is read again when it changes."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from engine.errors import ConfigError
from server.keys.api_key import ApiKey, plain_key
from server.keys.client import Client
from server.keys.key_file import check_profiles, read_key_file

log = logging.getLogger("ggserve")
POLL_S = 1.0
_Signature = tuple[int, ...] | None


class KeyRing:
    """keys: of --api-key. file: of --api-key-file. Raises ConfigError for an invalid file.

    Without keys, every request belongs to `anonymous`.
    """

    def __init__(self, keys: Sequence[SecretStr] = (), file: Path | None = None) -> None:
        self.anonymous = Client(None)
        self.file = file.expanduser() if file is not None else None
        self._own = [plain_key(key.get_secret_value()) for key in keys]
        self._keys: list[tuple[bytes, Client]] = []
        self._clients: dict[str, Client] = {}
        self.has_several_clients = False
        self._signature: _Signature = None
        self.reload()

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._keys)

    @property
    def clients(self) -> list[Client]:
        return list(self._clients.values())

    def find(self, digest: bytes) -> Client | None:
        """The client whose key has this digest. Takes constant time, whichever key it is."""
        match: Client | None = None
        for known, client in self._keys:
            if hmac.compare_digest(digest, known):
                match = client
        return match

    def reload(self) -> None:
        """Read the file. Raises ConfigError if it is invalid; the keys then stay as they are."""
        keys = list(self._own)
        if self.file is not None:
            signature = _signature(self.file)
            lines = read_key_file(self.file)
            self._signature = signature
            keys += [line.key for line in lines]
            if any(line.secret is not None for line in lines):
                _warn_readable(self.file)
        try:
            check_profiles(keys)
        except ValueError as error:
            raise ConfigError(f"--api-key and --api-key-file: {error}") from error
        self._take(keys)

    def _take(self, keys: list[ApiKey]) -> None:
        profiles = {key.profile.name: key.profile for key in keys}
        self._clients = {
            name: self._clients.get(name) or Client(profile) for name, profile in profiles.items()
        }
        for name, client in self._clients.items():
            client.update(profiles[name], alone=len(profiles) == 1)
        self.has_several_clients = len(profiles) > 1
        self._keys = [(key.digest, self._clients[key.profile.name]) for key in keys]

    async def watch(self) -> None:
        """Read the file again whenever it has changed. An invalid file is reported once."""
        if self.file is None:
            return
        seen = self._signature
        while True:
            await asyncio.sleep(POLL_S)
            now = await asyncio.to_thread(_signature, self.file)
            if now in (seen, self._signature):
                continue
            seen = now
            self.reload_or_log()

    def reload_or_log(self) -> bool:
        """Call `reload` and log the outcome. Returns whether it succeeded."""
        try:
            self.reload()
        except ConfigError as error:
            log.error("%s; the previous keys stay in use", error)
            return False
        log.info("read the API keys of %d clients", len(self._clients))
        return True


def _signature(path: Path) -> _Signature:
    """A value that differs after a file was changed or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _warn_readable(path: Path) -> None:
    if os.name != "posix":
        return
    try:
        mode = os.stat(path).st_mode
    except OSError:  # replaced since it was read
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning(
            "other users of this machine can read the keys in %s (mode %04o): run chmod 600, or keep only "
            "hashes in it (ggserve keys new)",
            path,
            stat.S_IMODE(mode),
        )
