"""The limits of connections hold with TLS, from the TCP connection on; on both event loops."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct

import pytest
import uvloop

from server.http.certificate import Certificate
from support.fakes.engine_client import run, until
from support.fakes.http_app import make_certificate, serving

LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
GOOD = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
AGAIN = GOOD.replace(b"connection: close\r\n", b"")
WAIT = AGAIN.replace(b"/", b"/wait", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def trusting(files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files[0])


async def connect(port: int, files):
    return await asyncio.open_connection("127.0.0.1", port, ssl=trusting(files))


async def ask(port: int, files, data: bytes = GOOD) -> bytes:
    reader, writer = await connect(port, files)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def tls_socket(port: int, files) -> ssl.SSLSocket:
    return trusting(files).wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
    )


@LOOPS
def test_requests_are_answered_one_after_the_other(files, loop):
    async def main():
        async with serving(Certificate(*files)) as (port, server, app):
            reader, writer = await connect(port, files)
            for _ in range(3):
                writer.write(AGAIN)
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert app.schemes == {"https"}
            (connection,) = server.server_state.connections
            tls = connection.transport.get_extra_info("ssl_object")
            assert tls.version() == "TLSv1.3"
            assert tls.selected_alpn_protocol() is None  # this client offered none
            writer.close()
            await until(lambda: not server.server_state.connections)

    run(main, loop)


@LOOPS
def test_a_handshake_may_come_byte_by_byte(files, loop):
    async def main():
        async with serving(Certificate(*files)) as (port, server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: server.server_state.connections)
            (connection,) = server.server_state.connections
            assert connection.transport.get_protocol() is connection  # nothing of TLS while it says nothing
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = trusting(files).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            answer = b""
            while not answer.endswith(b"hello"):
                try:
                    if client.version() is None:
                        client.do_handshake()
                        client.write(GOOD)
                    answer += client.read()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0)
                    incoming.write(await asyncio.wait_for(reader.read(65536), 20))
            writer.close()

    run(main, loop)


@LOOPS
def test_clients_that_never_begin_or_never_end_a_handshake_are_closed_in_time(files, loop):
    async def main():
        async with serving(Certificate(*files), header_timeout_s=0.3) as (port, server, _):
            silent = await asyncio.open_connection("127.0.0.1", port)
            slow = await asyncio.open_connection("127.0.0.1", port)
            slow[1].write(b"\x16\x03\x01\x02\x00\x01")  # of a client's first message
            plain = await asyncio.open_connection("127.0.0.1", port)
            plain[1].write(GOOD)
            hasty = await asyncio.open_connection("127.0.0.1", port)
            hasty[1].close()
            for reader, writer in (silent, slow, plain):
                assert b"HTTP" not in await asyncio.wait_for(reader.read(), 20)
                writer.close()
            await until(lambda: not server.server_state.connections)
            assert (await ask(port, files)).endswith(b"hello")

    run(main, loop)


@LOOPS
def test_endless_head_is_cut_by_time_and_size(files, loop):
    async def main():
        async with serving(Certificate(*files), header_timeout_s=0.5, max_header_bytes=2000) as (
            port,
            server,
            _,
        ):
            assert b" 408 " in await ask(port, files, b"GET / HTTP/1.1\r\nx: ")
            assert b" 431 " in await ask(port, files, b"GET / HTTP/1.1\r\nx: " + b"a" * 3000)
            assert await ask(port, files, b"") == b""
            await until(lambda: not server.server_state.connections)

    run(main, loop)


@LOOPS
def test_idle_connections_make_room_with_and_without_a_handshake(files, loop):
    async def main():
        async with serving(Certificate(*files), max_connections=4) as (port, server, _):
            n_open = lambda: len(server.server_state.connections)  # noqa: E731
            raw = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await until(lambda: n_open() == 2)
            # Sockets that nobody reads: they never answer that the connection is being closed.
            deaf = [await asyncio.to_thread(tls_socket, port, files) for _ in range(2)]
            await until(lambda: n_open() == 4)
            more = []
            for reader, writer in raw:
                more.append(await connect(port, files))
                assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.close()
            for sock in deaf:
                more.append(await connect(port, files))
                await until(lambda: n_open() == 4)
                sock.settimeout(20)
                assert await asyncio.to_thread(sock.recv, 10) == b""
                sock.close()
            for reader, writer in more:
                writer.write(AGAIN)
                await reader.readuntil(b"hello")
                writer.close()
            await until(lambda: not server.server_state.connections)

    run(main, loop)


@LOOPS
def test_connection_over_the_limit_is_closed(files, loop):
    async def main():
        async with serving(Certificate(*files), max_connections=1) as (port, server, app):
            _, writer = await connect(port, files)
            writer.write(WAIT)
            await until(lambda: app.waiting)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await ask(port, files)
            writer.close()
            await until(lambda: app.n_left == 1 and not server.server_state.connections)

    run(main, loop)


@LOOPS
def test_client_that_does_not_read_is_disconnected(files, loop, caplog):
    caplog.set_level(logging.INFO, "ggserve")

    async def main():
        async with serving(Certificate(*files), send_timeout_s=0.3) as (port, server, app):
            sock = await asyncio.to_thread(tls_socket, port, files)
            sock.sendall(GOOD.replace(b"GET /", b"GET /flood"))
            await until(lambda: app.flooding == 1)
            (connection,) = server.server_state.connections
            await until(lambda: connection.flow.write_paused)
            assert connection.transport.get_write_buffer_size() < 3 * 65536
            await until(lambda: app.flooding == 0 and not server.server_state.connections)
            sock.close()

    run(main, loop)
    assert "the client did not read for 0.3 s: disconnected" in caplog.text


def close_notify(sock: ssl.SSLSocket) -> None:
    sock.settimeout(20)
    sock.unwrap().close()


def truncate(sock: ssl.SSLSocket) -> None:
    sock.close()  # Python sends no close_notify here


def half_close(sock: ssl.SSLSocket) -> None:
    sock.shutdown(socket.SHUT_WR)  # of TCP: nor here, and what is received is no longer decrypted
    sock.settimeout(20)
    while sock.recv(10_000):
        pass
    sock.close()


def reset(sock: ssl.SSLSocket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@LOOPS
@pytest.mark.parametrize("end", [close_notify, truncate, half_close, reset])
def test_every_kind_of_connection_end_counts_as_disconnect(files, end, loop, caplog):
    async def main():
        async with serving(Certificate(*files)) as (port, server, app):
            sock = await asyncio.to_thread(tls_socket, port, files)
            sock.sendall(WAIT)
            await until(lambda: app.waiting)
            await asyncio.to_thread(end, sock)
            await until(lambda: app.n_left == 1 and not server.server_state.connections)

    run(main, loop)
    assert not caplog.records


@LOOPS
def test_large_answer_arrives_whole_before_the_close(files, loop):
    async def main():
        async with serving(Certificate(*files)) as (port, _, _):
            answer = await ask(port, files, GOOD.replace(b"GET /", b"GET /large"))
            assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000

    run(main, loop)


def test_reloaded_certificate_is_used_for_new_connections(tmp_path):
    async def main():
        old = make_certificate(tmp_path, "old")
        new = make_certificate(tmp_path, "new")
        certificate = Certificate(*old)
        async with serving(certificate) as (port, _, _):
            reader, writer = await connect(port, old)
            writer.write(AGAIN)
            await reader.readuntil(b"hello")
            for path, other in zip(old, new, strict=True):
                path.write_bytes(other.read_bytes())
            certificate.reload_or_log()
            assert (await ask(port, new)).endswith(b"hello")
            writer.write(AGAIN)
            await reader.readuntil(b"hello")
            writer.close()

    run(main)
