"""The link to the engine process as it is on Windows, here: TCP sockets, a thread for the log, no poll."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from typing import IO

import pytest
import uvloop

from engine.types import FinishReason
from server.worker import transport as link
from support.fakes.engine_client import alive, collect, kill, request, run, running, until
from support.fakes.engine_process import ABORT, text_of

LOOPS = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socketpair", tcp_pair)

    async def read_pipe(pipe: IO[bytes], protocol: asyncio.Protocol) -> None:
        link.read_in_thread(asyncio.get_running_loop(), pipe, protocol)

    monkeypatch.setattr(link, "read_pipe", read_pipe)


def test_small_frames_are_sent_at_once(windows: None) -> None:
    ends = link.pair()
    for end in ends:
        assert end.family == socket.AF_INET
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        end.close()


@LOOPS
@pytest.mark.usefixtures("windows")
def test_an_engine_that_dies_is_replaced_and_its_streams_continue(loop) -> None:
    async def main() -> None:
        async with running("--step-ms", "2") as client:
            task = asyncio.create_task(collect(client.generate(request("a", [1], 100))))
            await until(lambda: client.requests()[0].n_generated > 5)
            pid = client.pid
            kill(client)
            assert await task == (text_of([1], 100), FinishReason.LENGTH, None)
            assert client.pid != pid
            assert client.restarts == 1

    run(main, loop)


@pytest.mark.usefixtures("windows")
def test_last_log_line_explains_the_engines_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running() as client:
            await collect(client.generate(request("a", [ABORT], 5)))

    run(main)
    assert "SIGABRT; last log: ggml.c:1234: GGML_ASSERT" in caplog.text


@pytest.mark.usefixtures("windows")
def test_engine_ends_with_its_server() -> None:
    async def main() -> None:
        async with running("--step-ms", "50") as client:
            pid = client.pid
            assert pid is not None
            stream = client.generate(request("a", [1], 100_000))
            await anext(stream)
            await client.stop(0)
            assert not alive(pid)

    run(main)


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair], ids=["unix", "tcp"])
def test_closed_peer_is_noticed(pair) -> None:
    ours, theirs = pair()
    ours.sendall(b"a frame")
    noticed = threading.Event()
    link.watch(theirs, noticed.set)
    assert not noticed.wait(0.3)
    ours.close()
    assert theirs.recv(100) == b"a frame"  # what came before is there for whoever reads it
    assert noticed.wait(10)
    theirs.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no numbers of files there")
def test_only_the_engines_socket_is_inherited() -> None:
    ours, theirs = link.pair()
    try:
        assert link.inherit(theirs) == {"pass_fds": [theirs.fileno()]}
        assert not any(os.get_inheritable(end.fileno()) for end in (ours, theirs))
    finally:
        ours.close()
        theirs.close()
