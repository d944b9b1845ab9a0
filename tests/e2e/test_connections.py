"""Clients that connect and say nothing leave room for those that ask."""

from __future__ import annotations

import http.client
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import psutil
import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until


def test_idle_connections_beyond_the_limit_make_room_for_new_ones():
    with ServerProcess("--threads", "1", "--max-connections", "100") as server:
        address = urlsplit(server.url)
        user = http.client.HTTPConnection(address.netloc, timeout=60)
        idle = []
        for _ in range(10):
            idle += [socket.create_connection((address.hostname, address.port)) for _ in range(40)]
            server.get("/health")  # the last one that is accepted: else more rounds could wait than make room
            body = json.dumps({"prompt": "Once", "max_tokens": 2})
            user.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            answer = user.getresponse()
            assert answer.status == 200, answer.read()
            assert json.load(answer)["usage"]["completion_tokens"] == 2
        user.close()
        for each in idle:
            each.close()


@pytest.fixture
def n_idle() -> Iterator[int]:
    """10,000, or what the system lets this process and the server open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield 10_000 if hard == resource.RLIM_INFINITY else min(10_000, hard // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_10_000_idle_connections_do_not_slow_a_client(n_idle):
    """They are open all at once, and cost little."""
    with ServerProcess("--threads", "1", "--header-timeout-s", "600") as server:
        address = urlsplit(server.url)
        process = psutil.Process(server.process.pid)
        body = json.dumps({"prompt": "Once", "max_tokens": 2})
        with closing(http.client.HTTPConnection(address.netloc, timeout=60)) as user:

            def ask() -> None:
                user.request("POST", "/v1/completions", body, {"content-type": "application/json"})
                answer = user.getresponse()
                assert answer.status == 200, answer.read()
                assert json.load(answer)["usage"]["completion_tokens"] == 2

            def seconds(n: int = 300) -> float:
                """Of the server's processor for each of n requests, however busy the machine is."""
                before = sum(process.cpu_times()[:2])
                for _ in range(n):
                    ask()
                return (sum(process.cpu_times()[:2]) - before) / n

            ask()
            alone = seconds()
            n_before, memory = process.num_fds(), process.memory_info().rss
            with ExitStack() as idle:
                for i in range(n_idle):
                    sock = socket.create_connection((address.hostname, address.port))
                    idle.enter_context(closing(sock))
                    if i % 1000 == 999:
                        ask()
                wait_until(lambda: process.num_fds() >= n_before + n_idle)
                assert process.memory_info().rss - memory < n_idle * 16384
                assert seconds() < 1.5 * alone
            wait_until(lambda: process.num_fds() <= n_before)
            ask()
        assert server.end() == 0
        assert not any("Traceback" in line for line in server.lines)
