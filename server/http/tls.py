"""TLS connections, whose limits begin with the TCP connection.

An event loop that is given the certificate reports connections to a protocol only after their handshake, so
that silent ones would not be counted anywhere. So the handshake is started here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.config.settings import Settings
from server.http.certificate import Certificate
from server.http.protocol import LimitedProtocol, limited_protocol

log = logging.getLogger("ggserve")
HIGH_WATER = 65536  # bytes that wait to be sent when writing pauses, as without TLS


class TlsProtocol(LimitedProtocol):
    """One connection. Until the handshake is done, `transport` is the TCP transport."""

    certificate: Certificate
    _is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._tcp = transport
        self._in_handshake = False
        self._early: list[bytes] = []
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_ready:
            super().data_received(data)
        elif self._in_handshake:  # asyncio of Python 3.11 reads on before it tells that the handshake is done
            self._early.append(data)
        elif not self._tcp.is_closing():
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        """Begin the handshake once the client has: silent connections cost no memory for TLS."""
        self._in_handshake = True
        handshake = self.loop.start_tls(
            self._tcp,
            self,
            self.certificate.context,
            server_side=True,
            ssl_handshake_timeout=self.header_timeout_s,
            ssl_shutdown_timeout=self.send_timeout_s,
        )
        ready: asyncio.Future[None] = handshake.send(None)  # as far as it waits; a task would begin later
        ready.add_done_callback(lambda _: self._finish(handshake))
        # Of the event loop. It has missed the first bytes.
        receiver = cast(asyncio.BufferedProtocol, self._tcp.get_protocol())
        while data:
            buffer = memoryview(receiver.get_buffer(len(data)))
            n = min(len(buffer), len(data))
            buffer[:n] = data[:n]
            receiver.buffer_updated(n)
            data = data[n:]

    def _finish(self, handshake: Coroutine[Any, Any, Any]) -> None:
        transport: asyncio.Transport | None = None
        try:
            handshake.send(None)
        except StopIteration as end:
            transport = end.value
        except OSError as error:  # ssl.SSLError is one
            log.debug("TLS handshake with %s failed: %s", self.client, error)
        if transport is None or self._tcp.is_closing():
            self._tcp.abort()
            self.connection_lost(None)
            return
        transport.set_write_buffer_limits(high=HIGH_WATER)
        HttpToolsProtocol.connection_made(self, transport)
        for data in self._early:
            self.data_received(data)

    @property
    def _is_ready(self) -> bool:
        return self.transport is not self._tcp

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_lost:  # a handshake that fails may tell as well
            self._is_lost = True
            super().connection_lost(exc)

    def close(self) -> None:
        """Send close_notify, and do not wait for the client's unless data is still to be sent."""
        waiting = self.transport.get_write_buffer_size() + self._tcp.get_write_buffer_size()
        self.transport.close()
        if not waiting:
            self._tcp.abort()

    def _refuse(self, status: int, message: str, code: str) -> None:
        if self._is_ready:
            super()._refuse(status, message, code)
        else:  # there is no way to tell it yet
            self.transport.close()


def tls_protocol(settings: Settings, certificate: Certificate) -> type[LimitedProtocol]:
    """The protocol class for uvicorn, with TLS and the limits of `settings`."""
    protocol = limited_protocol(settings, TlsProtocol)
    protocol.certificate = certificate
    return protocol
