"""Connections that never become a request, or never read the answer, cost little and not for long.

What is no HTTP at all: test_bad_input_wire.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import asynccontextmanager

import uvicorn

from server.config.settings import Settings
from server.http.protocol import limited_protocol
from support.fakes.engine_client import run, until


class App:
    """Answers every request; /flood never stops answering."""

    def __init__(self) -> None:
        self.flooding = 0

    async def __call__(self, scope, receive, send) -> None:
        flood = scope["path"] == "/flood"
        headers = [(b"content-type", b"text/plain"), *([] if flood else [(b"content-length", b"5")])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if flood:
            self.flooding += 1
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    if (await asyncio.wait_for(_poll(receive), 5)) == "http.disconnect":
                        return
            finally:
                self.flooding -= 1
        await send({"type": "http.response.body", "body": b"hello"})


async def _poll(receive) -> str:
    try:
        return (await asyncio.wait_for(receive(), 0.001))["type"]
    except TimeoutError:
        return ""


@asynccontextmanager
async def serving(**limits):
    settings = Settings(model=["x.gguf"], **limits)
    app = App()
    config = uvicorn.Config(
        app, http=limited_protocol(settings), ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    sock = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([sock]))
    await until(lambda: server.started)
    try:
        yield sock.getsockname()[1], server, app
    finally:
        server.should_exit = server.force_exit = True
        await task


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


def test_a_head_that_never_ends_is_cut_by_time_and_size():
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


def test_a_kept_connection_has_the_same_limits():
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


def test_slow_but_steady_heads_do_not_hold_the_others_up():
    async def main():
        async with serving(header_timeout_s=1) as (port, server, _):
            slow = [asyncio.create_task(talk(port, b"GET / HTTP/1.1\r\n")) for _ in range(100)]
            await until(lambda: len(server.server_state.connections) == 100)
            assert (await talk(port, GOOD)).endswith(b"hello")
            assert {error_of(answer) for answer in await asyncio.gather(*slow)} == {(408, "header_timeout")}

    run(main)


def test_a_new_connection_closes_the_one_that_waited_longest():
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


def test_a_connection_with_a_request_makes_no_room():
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


def test_slow_heads_give_way_to_whole_requests():
    async def main():
        async with serving(max_connections=20) as (port, server, _):
            slow = [asyncio.create_task(talk(port, b"GET / HTTP/1.1\r\n")) for _ in range(20)]
            await until(lambda: len(server.server_state.connections) == 20)
            for _ in range(5):
                assert (await talk(port, GOOD)).endswith(b"hello")
            for task in slow:
                task.cancel()

    run(main)


def test_a_client_that_does_not_read_is_dropped(caplog):
    caplog.set_level(logging.INFO, "ggserve")

    async def main():
        async with serving(send_timeout_s=0.3) as (port, server, app):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.transport.pause_reading()
            writer.write(GOOD.replace(b"GET /", b"GET /flood"))
            await until(lambda: app.flooding == 1)
            assert (await talk(port, GOOD)).endswith(b"hello")
            await until(lambda: app.flooding == 0 and not server.server_state.connections)
            writer.close()
            assert reader is not None

    run(main)
    assert "the client did not read for 0.3 s: dropped" in caplog.text


def test_an_upgrade_is_answered_as_a_plain_request(caplog):
    async def main():
        async with serving() as (port, _, _):
            upgrade = b"connection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
            answer = await talk(port, GOOD.replace(b"connection: close\r\n\r\n", upgrade))
            assert answer.startswith(b"HTTP/1.1 200")

    run(main)
    assert not caplog.records
