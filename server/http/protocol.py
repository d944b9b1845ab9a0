"""uvicorn's HTTP protocol, with the time and size limits that it lacks.

Routes see complete requests only. The limits here apply before a request is complete, and to clients that do
not read their response. Connections without a request are closed to make room for new ones. A client that
closes its sending side after a request still gets the response.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.config.settings import MOST_CONNECTIONS, Settings
from server.errors import CLIENT_TOO_SLOW

log = logging.getLogger("ggserve")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"  # clients skip any number of them before the response
LINGER_S = 5.0  # in which the rest of a refused request may come
FIRST_PROBE_S, MOST_PROBE_S = 0.05, 5.0  # between them; each is twice the one before
_TYPES = {408: "timeout_error", 503: "service_unavailable"}


def refusal(status: int, message: str, code: str) -> bytes:
    """A complete error response, after which the connection is closed."""
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


class _ResponseTransport:
    """The transport to which a cycle writes; its `close` goes through `LimitedProtocol.linger`."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, linger


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limited_protocol` makes subclasses with the limits."""

    max_connections: int
    # Of a server: connections without a request, longest waiting first.
    waiting: ClassVar[dict[LimitedProtocol, None]]
    max_header_bytes: int
    header_timeout_s: float
    send_timeout_s: float
    draining = False  # of all connections of a server: responses close their connection

    @classmethod
    def reload(cls, settings: Settings) -> None:
        """Apply the limits that may change while the server runs."""
        cls.max_header_bytes = settings.max_header_bytes
        cls.header_timeout_s = settings.header_timeout_s
        cls.send_timeout_s = settings.send_timeout_s

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of the request that is answered at present; `cycle` is that of the newest one.
        self._running: RequestResponseCycle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections and not self._make_room():
            self._refuse(503, "too many open connections; try again later", "too_many_connections")
        else:
            self.waiting[self] = None
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._on_head_timeout)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for a request, as nginx does.

        False: none is waiting.
        """
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        del self.waiting[oldest]
        self.connections.discard(oldest)  # it may take the client a while to close its side
        oldest.close()
        return True

    def close(self) -> None:
        """Close a connection without a request."""
        self.transport.close()

    def linger(self) -> None:
        """Close after a response. What the client still sends is discarded for a while (RFC 9112, 9.6).

        If it were closed at once, the connection would be reset and the client would lose a response that it
        has not read.
        """
        if self._in_head or self.transport.is_closing():  # it has sent all
            self.transport.close()
            return
        if self.transport.can_write_eof():  # not TLS
            self.transport.write_eof()
        self.flow.resume_reading()
        self.waiting[self] = None  # makes room for others
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.close()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.close()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        for timer in (self._head_timer, self._send_timer, self._probe_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        if self._running is not None and not self._running.response_complete:  # uvicorn tells only the newest
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to keep the connection: yes for complete requests whose client may still read.

        A client that has left looks the same until something is written to it (`_probe`). HTTP/1.0 has
        nothing that could be written before the response, and asyncio cannot keep one half of a TLS
        connection.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self.scheme == "https":
            return False
        if cycle.scope["http_version"] == "1.0" and not cycle.response_started:
            return False
        cycle.keep_alive = False
        if self._head_timer is not None:  # of a further request, which will not be complete
            self._head_timer.cancel()
        if self._probe_timer is None:
            self._probe(FIRST_PROBE_S)
        return True

    def _probe(self, pause_s: float) -> None:
        """While a response has not begun, write something that only a client that has left answers with a
        reset.

        The transport reports the reset at the next write. Once the response has begun, its own parts have the
        same effect.
        """
        if self.cycle.response_started or self.transport.is_closing():
            return
        if self._running is not None and not self._running.response_started:  # else it may be half written
            self.transport.write(INTERIM)
        pause_s = min(pause_s, MOST_PROBE_S)
        self._probe_timer = self.loop.call_later(pause_s, self._probe, 2 * pause_s)

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None or self.transport.is_closing():  # the client is still sending
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:  # the next request of a keep-alive connection
                self._head_timer = self.loop.call_later(self.header_timeout_s, self._on_head_timeout)
        super().data_received(data)
        # `HeadLimits` checks a complete head exactly; this bounds one that never ends.
        if self._in_head and self._head_bytes > self.max_header_bytes:
            message = f"the request headers are too large (at most {self.max_header_bytes} bytes)"
            self._refuse(431, message, "headers_too_large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()
        transport = _ResponseTransport(self.transport, self.linger)
        self.cycle.transport = transport  # type: ignore[assignment]
        if not self.pipeline:
            self._running = self.cycle
        if self.draining:
            self.drain()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._linger_timer is not None:
            return
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # no other was sent ahead
            self.waiting[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.send_timeout_s, self._on_send_timeout)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "not a valid HTTP request", "invalid_http")

    def _unsupported_upgrade_warning(self) -> None:
        """Upgrade requests are answered as ordinary requests, without a warning in the log."""

    def drain(self) -> None:
        """Close after the current response. An idle connection stays open for one more request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(
                408,
                f"the request headers did not arrive within {self.header_timeout_s:g} s",
                "header_timeout",
            )
        else:
            self.close()

    def _on_send_timeout(self) -> None:
        """The client does not read its response: disconnect it and log that."""
        cycle = self._running
        assert cycle is not None  # without one nothing is sent that could wait
        scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
        record = scope.get("ggserve.record")
        request_id = record.id if record is not None else "-"
        if record is not None and not cycle.response_complete:
            record.error = CLIENT_TOO_SLOW
        log.info(
            "request %s: the client did not read for %g s: disconnected", request_id, self.send_timeout_s
        )
        # With a reset: else the system keeps what was sent, some megabytes, for minutes.
        if (sock := self.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _refuse(self, status: int, message: str, code: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal(status, message, code))
            self.transport.close()


P = TypeVar("P", bound=LimitedProtocol)


def limited_protocol(settings: Settings, base: type[P]) -> type[P]:
    """A subclass of `base`, for uvicorn, with the limits of `settings`."""
    limits = {"max_connections": settings.max_connections or MOST_CONNECTIONS, "waiting": {}}
    protocol: type[P] = type(base.__name__, (base,), limits)
    protocol.reload(settings)
    return protocol
