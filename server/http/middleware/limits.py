"""Limits on hosts, headers and bodies, checked before a route is called.

The body is read here and passed to the route in one piece. It is counted as it arrives, since Content-Length
may be wrong or absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config.settings import Settings
from server.errors import ApiError, ClientLeft
from server.generation.request_context import record_of

MAX_HEADERS = 256
_UNIQUE = (b"host", b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
CLOSE = {"connection": "close"}  # the rest of a refused request is not read


class HeadLimits:
    """ASGI middleware that checks the headers before the body is read."""

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings]) -> None:
        """settings: returns the settings in effect."""
        self.app, self._settings = app, settings
        self.hosts = settings().host_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] == "http":
            try:
                self._check_head(scope)
            except ApiError as error:
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check_head(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        size += len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
        most = self._settings().max_header_bytes
        if len(headers) > MAX_HEADERS or size > most:
            limits = f"at most {most} bytes and {MAX_HEADERS} fields"
            message = f"the request headers are too large ({limits})"
            raise ApiError(431, message, code="headers_too_large", headers=CLOSE)
        headers_by_name: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _UNIQUE and headers_by_name.get(name, value) != value:
                raise ApiError(400, f"two different {name.decode()} headers", headers=CLOSE)
            headers_by_name[name] = value
        if b"transfer-encoding" in headers_by_name and b"content-length" in headers_by_name:
            message = "Content-Length together with Transfer-Encoding is ambiguous"
            raise ApiError(400, message, code="ambiguous_length", headers=CLOSE)
        self._check_host(headers_by_name.get(b"host", b""))
        if headers_by_name.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
            message = "the only supported Transfer-Encoding is chunked"
            raise ApiError(415, message, code="unsupported_encoding", headers=CLOSE)
        encoding = headers_by_name.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            message = "compressed bodies are not supported; send the body without Content-Encoding"
            raise ApiError(415, message, code="unsupported_encoding", headers=CLOSE)

    def _check_host(self, header: bytes) -> None:
        if self.hosts is None:
            return
        host = header.decode("latin-1").strip().lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.rstrip(".") not in self.hosts:
            message = "the Host header is not allowed; see --allowed-hosts"
            raise ApiError(403, message, code="host_not_allowed", headers=CLOSE)


class BodyLimits:
    """ASGI middleware that reads the whole body within the limits."""

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings]) -> None:
        """settings: returns the settings in effect."""
        self.app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ClientLeft:
            raise
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()  # only http.disconnect can follow
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        settings = self._settings()
        most, timeout_s = settings.max_body_bytes, settings.body_timeout_s
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not declared.isdigit() or len(declared) > 20 or int(declared) > most:
            raise _too_large(most)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise _too_large(most)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            text = f"the request body did not arrive within {timeout_s:g} s"
            raise ApiError(408, text, code="body_timeout", headers=CLOSE) from None


def _too_large(most: int) -> ApiError:
    message = f"the request body is larger than {most} bytes (--max-body-bytes)"
    return ApiError(413, message, code="body_too_large", headers=CLOSE)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an error from a middleware, where exception handlers do not apply."""
    record_of(scope).error = error.code
    await error.response(scope)(scope, receive, send)
