"""What a connection may cost: uvicorn's HTTP protocol with time and size limits where it has none.

The routes see complete requests only. Here are the limits on what comes before one is complete, and on a
client that does not read what it is sent.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from server.config.settings import Settings

_TYPES = {408: "timeout_error", 503: "service_unavailable"}


def refusal(status: int, message: str, code: str) -> bytes:
    """A whole response in the error shape of the API, after which the connection is closed."""
    error = {
        "message": message,
        "type": _TYPES.get(status, "invalid_request_error"),
        "param": None,
        "code": code,
    }
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    )
    if status == 503:
        head += "retry-after: 1\r\n"
    return head.encode() + b"\r\n" + body


class LimitedProtocol(HttpToolsProtocol):
    """One connection. The limits are set by `limited_protocol`."""

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    send_timeout_s: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many open connections; try again", "too_many_connections")
        else:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused, and still talking
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:  # the next request of a connection that is kept
                self._head_timer = self.loop.call_later(self.header_timeout_s, self._head_is_late)
        super().data_received(data)
        # A complete head is judged by the application, exactly; this bounds one that never ends.
        if self._in_head and self._head_bytes > self.max_header_bytes:
            message = f"the request's head is too large (at most {self.max_header_bytes} bytes)"
            self._refuse(431, message, "headers_too_large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not a valid HTTP request", "invalid_http")

    def _unsupported_upgrade_warning(self) -> None:
        """Answered as the plain request that it also is."""

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(
                408, f"the request's head did not arrive within {self.header_timeout_s:g} s", "header_timeout"
            )
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal(status, message, code))
            self.transport.close()


def limited_protocol(settings: Settings) -> type[LimitedProtocol]:
    """The protocol class for uvicorn with the limits of `settings`."""

    class Protocol(LimitedProtocol):
        max_connections = settings.max_connections
        max_header_bytes = settings.max_header_bytes
        header_timeout_s = settings.header_timeout_s
        send_timeout_s = settings.send_timeout_s

    return Protocol
