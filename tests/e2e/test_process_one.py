"""The server as process 1 of its namespace, as in a container: signals, orphans and its engines.

Needs util-linux' `unshare`, and either root or a system that lets users make namespaces.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from urllib.request import Request, urlopen

import psutil
import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until

UNSHARE = (
    "unshare",
    *([] if os.geteuid() == 0 else ["--map-root-user"]),
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)


@cache
def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_unshare(), reason="no process namespaces without rights to make one")


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--threads", "1", "--context-size", "100000", prefix=UNSHARE) as process:
        yield process


def process_one(server: ServerProcess) -> psutil.Process:
    (child,) = psutil.Process(server.process.pid).children()
    assert child.cmdline()[1:4] == ["-m", "server", "serve"]
    return child


def engine(one: psutil.Process) -> psutil.Process | None:
    """The engine process that lives."""
    for child in one.children():
        if child.status() != psutil.STATUS_ZOMBIE and "server.worker.process.main" in child.cmdline():
            return child
    return None


def stream(server: ServerProcess, **fields: object):
    body = json.dumps({"prompt": "Once upon a time", "ignore_eos": True, "stream": True, **fields}).encode()
    request = Request(server.url + "/v1/completions", body, {"content-type": "application/json"})
    reply = urlopen(request, timeout=60)
    assert reply.readline().startswith(b"data: ")
    return reply


def test_sigterm_drains_and_a_second_one_ends_at_once(server):
    one = process_one(server)
    with stream(server, max_tokens=500) as finite, stream(server):
        one.send_signal(signal.SIGTERM)
        server.wait_for("stopping: 2 requests")
        assert finite.read().endswith(b"data: [DONE]\n\n")
        one.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    assert not any("Traceback" in line for line in server.lines)


def test_sigterm_without_requests_exits_with_0(server):
    process_one(server).send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_an_engine_that_is_killed_is_replaced_and_leaves_no_zombie(server):
    one = process_one(server)
    before = engine(one)
    with stream(server, max_tokens=500) as finite:
        before.kill()
        assert finite.read().endswith(b"data: [DONE]\n\n")
    wait_until(lambda: not any(child.status() == psutil.STATUS_ZOMBIE for child in one.children()))
    assert engine(one) not in (None, before)
    one.send_signal(signal.SIGTERM)
    assert server.wait() == 0
