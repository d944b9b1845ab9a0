"""What is refused before a route sees it: hosts, headers, bodies that are compressed, too large or slow.

The body is read here, counted as it arrives (a Content-Length may lie or be absent), and replayed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from server.errors import ApiError, ClientLeft
from server.http.middleware.access_log import record_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.config.settings import Settings

MAX_HEADERS = 256
_SINGLE = (b"host", b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
_CLOSE = {"connection": "close"}  # the rest of a refused request is not worth reading


class HeadLimits:
    """ASGI middleware that looks at a request before anything of its body is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = settings.host_names()
        self.max_header_bytes = settings.max_header_bytes

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
        if len(headers) > MAX_HEADERS or size > self.max_header_bytes:
            most = f"at most {self.max_header_bytes} bytes and {MAX_HEADERS} fields"
            message = f"the request's head is too large ({most})"
            raise ApiError(431, message, code="headers_too_large", headers=_CLOSE)
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _SINGLE and found.get(name, value) != value:
                raise ApiError(400, f"two different {name.decode()} headers", headers=_CLOSE)
            found[name] = value
        if b"transfer-encoding" in found and b"content-length" in found:
            message = "Content-Length together with Transfer-Encoding is ambiguous"
            raise ApiError(400, message, code="ambiguous_length", headers=_CLOSE)
        self._check_host(found.get(b"host", b""))
        if found.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
            message = "the only transfer coding that is taken is chunked"
            raise ApiError(415, message, code="unsupported_encoding", headers=_CLOSE)
        encoding = found.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            message = "compressed bodies are not taken; send the body without Content-Encoding"
            raise ApiError(415, message, code="unsupported_encoding", headers=_CLOSE)

    def _check_host(self, header: bytes) -> None:
        if self.hosts is None:
            return
        host = header.decode("latin-1").strip().lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.rstrip(".") not in self.hosts:
            message = "this Host is not served here; allow it with --allowed-hosts"
            raise ApiError(403, message, code="host_not_allowed", headers=_CLOSE)


class BodyLimits:
    """ASGI middleware that reads the body and hands it on in one piece."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.max_body_bytes = settings.max_body_bytes
        self.body_timeout_s = settings.body_timeout_s

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
                return await receive()  # from now on only the news that the client left
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not declared.isdigit() or len(declared) > 20 or int(declared) > self.max_body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self.max_body_bytes:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            text = f"the body did not arrive within {self.body_timeout_s:g} s"
            raise ApiError(408, text, code="body_timeout", headers=_CLOSE) from None

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self.max_body_bytes} bytes (--max-body-bytes)"
        return ApiError(413, message, code="body_too_large", headers=_CLOSE)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer from a layer where no exception handler is."""
    record_of(scope).error = error.code
    await error.response(scope)(scope, receive, send)
