"""API keys. Closed by default: every path needs a key unless it is named here."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING

from server.errors import ApiError
from server.http.middleware.limits import refuse

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.types import ASGIApp, Receive, Scope, Send

PUBLIC = frozenset({"/", "/health", "/v1/health"})


class Auth:
    """ASGI middleware. Without keys everybody may call."""

    def __init__(self, app: ASGIApp, keys: Iterable[SecretStr]) -> None:
        self.app = app
        # Digests have one length, so that comparing tells nothing about a key's.
        self.digests = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.digests or scope["path"] in PUBLIC or self._allowed(scope):
            await self.app(scope, receive, send)
            return
        error = ApiError(
            401,
            "a valid API key is needed, as 'Authorization: Bearer KEY'",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer", "connection": "close"},  # its body is not read
        )
        await refuse(error, scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        bearer = [value for name, value in scope["headers"] if name == b"authorization"]
        plain = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(bearer) > 1 or len(plain) > 1:  # which one counts must not depend on who reads them
            return False
        keys = [value.strip() for value in plain]
        if bearer:
            scheme, _, key = bearer[0].partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
        valid = [digest for key in keys if key and self._known(digest := hashlib.sha256(key).digest())]
        if valid:
            scope["ggserve.key"] = valid[0]  # whose responses these are
        return bool(valid)

    def _known(self, digest: bytes) -> bool:
        found = False
        for known in self.digests:  # no early exit: the time must not tell which key it was
            found |= hmac.compare_digest(digest, known)
        return found
