"""API keys: which requests are allowed (`access` says what a route needs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.errors import ApiError, admin_required
from server.generation.request_context import record_of
from server.http.middleware.access import Access, required_access
from server.http.middleware.limits import CLOSE, refuse
from server.keys.api_key import digest_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from server.keys.client import Client
    from server.keys.key_ring import KeyRing


class Auth:
    """ASGI middleware: 401 without a valid key, 403 if the key's client may not call the route.

    It stores the client in scope["ggserve.client"], except for public routes without a valid key.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self.keys.required:
            scope["ggserve.client"] = self.keys.anonymous
            await self.app(scope, receive, send)
            return
        client, needed = self._client(scope), required_access(scope["method"], scope["path"])
        if client is None and needed is not Access.PUBLIC:
            await refuse(_unknown(), scope, receive, send)
            return
        if client is not None:
            scope["ggserve.client"] = client
            record_of(scope).key = client.name
            if needed is Access.ADMIN and not client.is_admin:
                await refuse(admin_required(CLOSE), scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _client(self, scope: Scope) -> Client | None:
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        x_api_key = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(authorization) > 1 or len(x_api_key) > 1:  # proxies may read another one than we do
            return None
        keys = [value.strip() for value in x_api_key]
        if authorization:
            scheme, _, key = authorization[0].partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
        clients = [self.keys.find(digest_of(key)) for key in keys if key]
        return next((client for client in clients if client is not None), None)


def _unknown() -> ApiError:
    return ApiError(
        401,
        "missing or invalid API key; send 'Authorization: Bearer KEY'",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer", **CLOSE},
    )
