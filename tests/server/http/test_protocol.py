"""Connections that never become a request, or never read the answer, cost little and not for long.

What is no HTTP at all: test_bad_input_wire.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct

import pytest
import uvloop

from server.http.protocol import INTERIM
from support.fakes.engine_client import run, until
from support.fakes.http_app import serving


async def talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


GOOD = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def test_endless_head_is_cut_by_time_and_size():
    async def main():
        async with serving(header_timeout_s=0.3, max_header_bytes=2000) as (port, server, _):
            assert error_of(await talk(port, b"GET / HTTP/1.1\r\nx: ")) == (408, "header_timeout")
            assert error_of(await talk(port, b"GET / HTTP/1.1\r\nx: " + b"a" * 3000)) == (
                431,
                "headers_too_large",
            )
            assert await talk(port, b"") == b""  # said nothing: closed without an answer
            assert (await talk(port, GOOD)).endswith(b"hello")
            await until(lambda: not server.server_state.connections)

    run(main)


def test_kept_alive_connection_has_the_same_limits():
    async def main():
        async with serving(header_timeout_s=0.3, max_header_bytes=2000) as (port, server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(GOOD.replace(b"close", b"keep-alive"))
                await reader.readuntil(b"hello")
            (connection,) = server.server_state.connections
            assert connection._head_timer is None  # idle between two requests is no late head
            writer.write(GOOD.replace(b"close", b"keep-alive"))
            await reader.readuntil(b"hello")
            writer.write(b"GET / HT")
            assert error_of(await reader.read()) == (408, "header_timeout")
            writer.close()

    run(main)


def test_slow_heads_time_out_without_delaying_others():
    async def main():
        async with serving(header_timeout_s=1) as (port, server, _):
            slow = [asyncio.create_task(talk(port, b"GET / HTTP/1.1\r\n")) for _ in range(100)]
            await until(lambda: len(server.server_state.connections) == 100)
            assert (await talk(port, GOOD)).endswith(b"hello")
            assert {error_of(answer) for answer in await asyncio.gather(*slow)} == {(408, "header_timeout")}

    run(main)


def test_new_connection_at_the_limit_closes_the_longest_idle():
    again = GOOD.replace(b"connection: close\r\n", b"")

    async def main():
        async with serving(max_connections=3) as (port, server, _):
            user = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: len(server.server_state.connections) == 1)
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await until(lambda: len(server.server_state.connections) == 3)
            for reader, _ in idle:
                user[1].write(again)  # the oldest, but it has waited for the shortest time
                await user[0].readuntil(b"hello")
                idle.append(await asyncio.open_connection("127.0.0.1", port))
                assert await asyncio.wait_for(reader.read(), 5) == b""
                if len(idle) == 6:
                    break
            user[1].write(again)
            await user[0].readuntil(b"hello")
            for _, writer in (user, *idle):
                writer.close()

    run(main)


def test_connection_with_a_request_is_not_closed_for_a_new_one():
    async def main():
        async with serving(max_connections=3) as (port, server, app):
            busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for _, writer in busy:
                writer.write(b"GET /flood HTTP/1.1\r\n\r\n")
            await until(lambda: app.flooding == 3)
            answer = await talk(port, b"")
            assert error_of(answer) == (503, "too_many_connections")
            assert b"retry-after: 1" in answer
            assert app.flooding == 3
            for _, writer in busy:
                writer.close()
            await until(lambda: not server.server_state.connections)
            assert (await talk(port, GOOD)).endswith(b"hello")

    run(main)


def test_connections_with_slow_heads_are_closed_for_complete_requests():
    async def main():
        async with serving(max_connections=20) as (port, server, _):
            slow = [asyncio.create_task(talk(port, b"GET / HTTP/1.1\r\n")) for _ in range(20)]
            await until(lambda: len(server.server_state.connections) == 20)
            for _ in range(5):
                assert (await talk(port, GOOD)).endswith(b"hello")
            for task in slow:
                task.cancel()

    run(main)


def test_client_that_does_not_read_is_disconnected(caplog):
    caplog.set_level(logging.INFO, "ggserve")

    async def main():
        async with serving(send_timeout_s=0.3) as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.transport.pause_reading()
            writer.write(GOOD.replace(b"GET /", b"GET /flood"))
            await until(lambda: app.flooding == 1)
            assert (await talk(port, GOOD)).endswith(b"hello")
            await until(lambda: app.flooding == 0 and not server.server_state.connections)
            writer.transport.resume_reading()
            with pytest.raises(ConnectionResetError):  # nothing is kept for it
                await reader.read()
            writer.close()

    run(main)
    assert "the client did not read for 0.3 s: disconnected" in caplog.text


def test_unread_response_names_its_own_request_not_a_pipelined_one(caplog):
    caplog.set_level(logging.INFO, "ggserve")

    async def main():
        async with serving(send_timeout_s=0.3) as (port, server, app):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.transport.pause_reading()
            again = GOOD.replace(b"connection: close\r\n", b"")
            writer.write(
                again + again.replace(b"GET /", b"GET /flood") + again.replace(b"GET /", b"GET /later")
            )
            await until(lambda: app.flooding == 1)
            await until(lambda: app.flooding == 0 and not server.server_state.connections)
            assert [(r.id, r.error) for r in app.records] == [("/", None), ("/flood", "client_too_slow")]
            writer.close()

    run(main)
    assert "request /flood: the client did not read for 0.3 s: disconnected" in caplog.text


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_response_sent_before_the_body_ends_arrives(loop, monkeypatch):
    monkeypatch.setattr("server.http.protocol.LINGER_S", 20.0)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 20000000\r\n\r\n"

    async def main():
        async with serving() as (port, server, _):
            for _ in range(5):
                assert (await talk(port, head + b"x" * 20_000_000)).endswith(b"hello")
            await until(lambda: not server.server_state.connections)
            monkeypatch.setattr("server.http.protocol.LINGER_S", 0.1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            assert (await reader.read()).endswith(b"hello")
            await until(lambda: not server.server_state.connections)  # although it has not sent the rest
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_an_upgrade_is_answered_as_a_plain_request(caplog):
    async def main():
        async with serving() as (port, _, _):
            upgrade = b"connection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
            answer = await talk(port, GOOD.replace(b"connection: close\r\n\r\n", upgrade))
            assert answer.startswith(b"HTTP/1.1 200")

    run(main)
    assert not caplog.records


LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
WAIT = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"
STREAM = WAIT.replace(b"/wait", b"/stream")
LATE = b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhal"


@LOOPS
@pytest.mark.parametrize(("request_", "parts"), [(WAIT, [b"last"]), (STREAM, [b"first", b"last"])])
def test_a_client_that_closes_its_sending_side_gets_its_response(request_, parts, loop):
    async def main():
        async with serving() as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_)
            await until(lambda: app.waiting)
            (connection,) = server.server_state.connections
            writer.write_eof()
            await until(lambda: not connection.cycle.keep_alive)
            if request_ is WAIT:
                assert await reader.readexactly(2 * len(INTERIM)) == 2 * INTERIM
            app.may_answer.set()
            answer = await reader.read()
            writer.close()
            while answer.startswith(INTERIM):
                answer = answer.removeprefix(INTERIM)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n")
            assert app.n_left == 0

    run(main, loop)


def leave(sock: socket.socket) -> None:
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close_then_leave(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(len(INTERIM)) == INTERIM
    sock.close()


@LOOPS
@pytest.mark.parametrize("ahead", [b"", WAIT], ids=["one request", "another sent ahead"])
@pytest.mark.parametrize("end", [leave, reset, half_close_then_leave])
def test_disconnect_is_noticed_while_nothing_is_sent(end, ahead, loop):
    async def main():
        async with serving() as (port, server, app):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(WAIT + ahead)
            await until(lambda: app.waiting)
            await asyncio.to_thread(end, sock)
            await until(lambda: app.n_left == 1 and not server.server_state.connections)
            assert not app.may_answer.is_set()

    run(main, loop)


@LOOPS
@pytest.mark.parametrize("request_", [LATE, WAIT.replace(b"1.1", b"1.0")], ids=["half a body", "HTTP/1.0"])
def test_half_close_of_an_unfinished_request_counts_as_disconnect(request_, loop):
    async def main():
        async with serving() as (port, server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_)
            await until(lambda: any(each.cycle for each in server.server_state.connections))
            writer.write_eof()
            assert await reader.read() == b""
            await until(lambda: not server.server_state.connections)
            writer.close()

    run(main, loop)


def test_pipelined_requests_are_answered_one_after_the_other():
    async def main():
        async with serving() as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(STREAM + GOOD.replace(b"connection: close\r\n", b"") + b"GET / HTTP/1.1\r\nho")
            await until(lambda: app.waiting)
            (connection,) = server.server_state.connections
            writer.write_eof()
            await until(lambda: not connection.cycle.keep_alive)
            timer = connection._probe_timer
            await until(lambda: connection._probe_timer is not timer)  # it was time to write once more
            app.may_answer.set()
            answer = await reader.read()
            writer.close()
            assert answer.count(b"HTTP/1.1 200 OK") == 2
            assert answer.endswith(b"hello")
            assert INTERIM not in answer

    run(main)
