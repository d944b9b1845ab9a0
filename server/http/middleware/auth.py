"""API keys: which requests pass (`access` says what a route needs)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ApiError
from server.http.middleware.access import Access, required_access
from server.http.middleware.limits import refuse


class Auth:
    """ASGI middleware that answers 401 to requests without a valid key. Without keys it lets everything pass.

    It stores the digest of the request's key in scope["ggserve.key"].
    """

    def __init__(self, app: ASGIApp, keys: Iterable[SecretStr]) -> None:
        self.app = app
        # Digests have the same length, so that comparison does not reveal that of a key.
        self.digests = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.digests or self._allowed(scope) or _is_public(scope):
            await self.app(scope, receive, send)
            return
        error = ApiError(
            401,
            "missing or invalid API key; send 'Authorization: Bearer KEY'",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer", "connection": "close"},  # the body is not read
        )
        await refuse(error, scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        x_api_key = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(authorization) > 1 or len(x_api_key) > 1:  # proxies may read another one than we do
            return False
        keys = [value.strip() for value in x_api_key]
        if authorization:
            scheme, _, key = authorization[0].partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
        valid = [digest for key in keys if key and self._is_valid(digest := hashlib.sha256(key).digest())]
        if valid:
            scope["ggserve.key"] = valid[0]  # identifies the owner of stored responses
        return bool(valid)

    def _is_valid(self, digest: bytes) -> bool:
        valid = False
        for known in self.digests:  # no early exit: the time must not depend on which key it is
            valid |= hmac.compare_digest(digest, known)
        return valid


def _is_public(scope: Scope) -> bool:
    return required_access(scope["method"], scope["path"]) is Access.PUBLIC
