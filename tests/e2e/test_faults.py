"""Clients and machines that misbehave, against a real server with a real engine: the others are served."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until

BODY = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}
GAUGE = re.compile(r"^ggserve_(?:running|waiting|cells_used){.*} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Any:
    return tmp_path_factory.mktemp("slots")


@pytest.fixture(scope="module")
def server(folder) -> Iterator[ServerProcess]:
    limits = ("--context-size", "4096", "--parallel", "2", "--max-queue", "4", "--body-timeout-s", "2")
    with ServerProcess("--threads", "1", *limits, "--slot-save-path", str(folder)) as process:
        yield process
        assert process.end() == 0
        assert not any("Traceback" in line for line in process.lines)


def connect(server: ServerProcess) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120))


def post(server: ServerProcess, path: str = "/v1/completions", **fields: Any) -> tuple[int, Any, Any]:
    """Status, headers, body."""
    with connect(server) as connection:
        body = json.dumps(fields if path.startswith("/slots") else {**BODY, **fields})
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())


def head(n: int) -> bytes:
    lines = ("POST /v1/completions HTTP/1.1", "host: localhost", "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {n}", "", "")).encode()


def raw(server: ServerProcess, data: bytes) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(data)
    return connection


def engine_pid(server: ServerProcess) -> int | None:
    """Of the engine that lives; None while one that was killed is being replaced."""
    with suppress(psutil.Error):  # a process that just died
        return next(iter(server.engine_pids()), None)
    return None


def all_is_quiet(server: ServerProcess) -> bool:
    """No gauge says that anything runs, waits or holds cells."""
    with urlopen(server.url + "/metrics", timeout=60) as response:
        values = GAUGE.findall(response.read().decode())
    assert len(values) == 3
    return not any(map(float, values))


def test_after_200_disconnected_clients_the_next_is_served_and_gauges_are_zero(server):
    body = json.dumps({**BODY, "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    with ExitStack() as connections:
        for _ in range(200):
            connections.enter_context(closing(raw(server, head(len(body)) + body)))
        time.sleep(0.5)  # what the clients' patience is, not what the server should need
    wait_until(lambda: all_is_quiet(server))
    assert post(server)[0] == 200


def test_100_slow_senders_are_closed_while_others_are_served(server):
    with ExitStack() as connections:
        slow = [connections.enter_context(closing(raw(server, head(100) + b"{"))) for _ in range(100)]
        assert post(server)[0] == 200
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_ten_times_the_capacity_is_served_or_gets_429_with_retry_after(server):
    stop = threading.Event()
    healths: list[int] = []

    def watch() -> None:
        while not stop.is_set():
            for path in ("/health", "/metrics"):
                with urlopen(server.url + path, timeout=60) as response:
                    healths.append(response.status)

    with ThreadPoolExecutor(61) as pool:
        watching = pool.submit(watch)
        replies = [pool.submit(post, server, max_tokens=100, ignore_eos=True) for _ in range(60)]
        results = [reply.result() for reply in replies]
        stop.set()
        watching.result()
    statuses = [status for status, _, _ in results]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 6  # all that run or wait at once
    for status, headers, body in results:
        if status == 429:
            assert int(headers["retry-after"]) > 0
            assert body["error"]["code"] == "queue_full"
        else:
            assert body["usage"]["completion_tokens"] == 100
    assert set(healths) == {200}
    wait_until(lambda: all_is_quiet(server))


def test_a_full_disk_fails_the_save_and_leaves_no_file(server, folder):
    assert post(server, id_slot=0, prompt="The little dog " * 20)[0] == 200
    (pid,) = server.engine_pids()
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        status, _, body = post(server, "/slots/0?action=save", filename="a.bin")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert status >= 400
    assert str(folder) not in json.dumps(body)
    assert list(folder.iterdir()) == []
    assert server.engine_pids() == [pid]
    assert post(server, "/slots/0?action=save", filename="a.bin")[0] == 200
    assert [path.name for path in folder.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("n", [3, pytest.param(100, marks=pytest.mark.soak)])
def test_kill_9_of_the_engine_under_load_loses_no_stream(n):
    stop = threading.Event()
    with ServerProcess("--threads", "1", "--context-size", "4096", "--parallel", "4") as server:
        prompts = ["Once upon a time", "The little dog", "One day, a girl named", "Tom and his mom went"]
        fields = {"max_tokens": 300, "ignore_eos": True}
        expected = [post(server, prompt=prompt, **fields)[2]["usage"] for prompt in prompts]
        n_tokens = [0] * len(prompts)

        def streams(i: int) -> int:
            """Streams of one client after the other; how many ended whole."""
            n_whole = 0
            while not stop.is_set():
                with connect(server) as connection:
                    body = json.dumps({**BODY, **fields, "prompt": prompts[i], "stream": True, **USAGE})
                    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
                    response = connection.getresponse()
                    assert response.status == 200, response.read()
                    lines = []
                    for line in response:
                        lines.append(line)
                        n_tokens[i] += 1
                    assert lines[-2] == b"data: [DONE]\n", lines[-4:]
                    assert not any(b'"error"' in line for line in lines)
                    usage = next(json.loads(line[6:])["usage"] for line in lines if b'"usage":{' in line)
                    assert usage["completion_tokens"] == expected[i]["completion_tokens"]
                    n_whole += 1
            return n_whole

        with ThreadPoolExecutor(len(prompts)) as pool:
            clients = [pool.submit(streams, i) for i in range(len(prompts))]
            killed = None
            try:
                for _ in range(n):
                    before = list(n_tokens)
                    wait_until(
                        lambda before=before: (
                            all(now > then + 20 for now, then in zip(n_tokens, before, strict=True))
                            or any(client.done() for client in clients)
                        ),
                        60,
                    )
                    wait_until(lambda killed=killed: engine_pid(server) not in (None, killed))
                    killed = engine_pid(server)
                    os.kill(killed, signal.SIGKILL)
            finally:
                stop.set()
            assert all(client.result() for client in clients)
        wait_until(lambda: all_is_quiet(server))
        assert server.end() == 0
