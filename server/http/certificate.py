"""The certificate and private key of --tls-cert and --tls-key."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from pathlib import Path

from engine.errors import ConfigError

log = logging.getLogger("ggserve")
PASSWORD_VARIABLE = "GGSERVE_TLS_KEY_PASSWORD"
# The last: for a key of another kind (RSA, EC), since a certificate is kept for each kind.
_NOT_ITS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Certificate:
    """key None: the key is in the certificate file. Raises ConfigError for unusable files."""

    def __init__(self, cert: Path, key: Path | None = None) -> None:
        self.cert = cert.expanduser()
        self.key = key.expanduser() if key is not None else self.cert
        self._key_option = f"--tls-key {self.key}" if key is not None else f"--tls-cert {self.cert}"
        self.context = self._load()  # for new connections

    def reload_or_log(self) -> None:
        """Read the files again and log the outcome. Unusable files change nothing."""
        try:
            self.context = self._load()
        except ConfigError as error:
            log.error("%s; the previous certificate stays in use", error)
        else:
            log.info("read the certificate %s", self.cert)

    def _load(self) -> ssl.SSLContext:
        self._check(f"--tls-cert {self.cert}", self.cert, b"-----BEGIN CERTIFICATE-----", "certificate")
        self._check(self._key_option, self.key, b"PRIVATE KEY-----", "private key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or later
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        password = os.environ.get(PASSWORD_VARIABLE, "")
        questions = []

        def tell() -> str:  # else OpenSSL would ask on the terminal
            questions.append(1)
            return password

        try:
            context.load_cert_chain(self.cert, self.key, tell)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a password too long
            reason = getattr(error, "reason", None) or "OpenSSL cannot read it"
            if questions and not password:
                message = f"{self._key_option}: is encrypted; set its password in {PASSWORD_VARIABLE}"
            elif reason in _NOT_ITS_KEY:
                message = f"{self._key_option}: is not the key of the certificate {self.cert}"
            elif questions:
                message = f"{self._key_option}: the password in {PASSWORD_VARIABLE} does not open it"
            else:
                message = f"--tls-cert {self.cert}: cannot be used, or its key: {reason}"
            raise ConfigError(message) from None
        self._warn_readable()
        return context

    def _check(self, option: str, path: Path, mark: bytes, kind: str) -> None:
        """Check the files first, since OpenSSL's own errors do not name the file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{option}: {error.strerror or error}") from error
        if mark not in data:
            raise ConfigError(f"{option}: has no {kind} in PEM format")

    def _warn_readable(self) -> None:
        mode = os.stat(self.key).st_mode
        if os.name == "posix" and mode & stat.S_IROTH:
            log.warning(
                "every user of this machine can read the private key %s (mode %04o): run chmod 600",
                self.key,
                stat.S_IMODE(mode),
            )
