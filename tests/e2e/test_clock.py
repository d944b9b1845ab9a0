"""The system's clock jumps, and nothing ends early, late or never: intervals are those of another clock."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until

DAY_S = 86400
# Python imports a module of this name at its start.
SITE = """
import os, time
from pathlib import Path

folder = Path(os.environ["TEST_CLOCK"])
(folder / f"pid-{os.getpid()}").touch()
seconds, nanoseconds = time.time, time.time_ns
offset = lambda: int((folder / "offset").read_text() or "0")
time.time = lambda: seconds() + offset()
time.time_ns = lambda: nanoseconds() + offset() * 10**9
"""


@pytest.fixture
def jump(tmp_path: Path) -> Callable[[int], None]:
    """Sets the clock of servers with `variables(tmp_path)`."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "offset").write_text("0")

    def set_offset(seconds: int) -> None:
        (tmp_path / "new").write_text(str(seconds))
        (tmp_path / "new").rename(tmp_path / "offset")

    return set_offset


def variables(folder: Path) -> dict[str, str]:
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "TEST_CLOCK": str(folder)}


def post(server: ServerProcess, **fields: Any) -> Any:
    body = json.dumps({"prompt": "Once upon a time", "ignore_eos": True, **fields}).encode()
    request = Request(server.url + "/v1/completions", body, {"content-type": "application/json"})
    return urlopen(request, timeout=120)


@pytest.mark.parametrize("days", [-1, 1], ids=["back", "forward"])
def test_a_clock_that_jumps_changes_nothing(days, jump, tmp_path):
    options = ("--threads", "1", "--context-size", "100000", "--parallel", "4", "--header-timeout-s", "2")
    with ServerProcess(*options, "--engine-timeout-s", "2", variables=variables(tmp_path)) as server:
        (engine,) = server.engine_pids()
        for pid in (server.process.pid, engine):
            assert (tmp_path / f"pid-{pid}").exists()  # else it would have another clock
        address = urlsplit(server.url)
        with (
            ThreadPoolExecutor(2) as pool,
            post(server, stream=True, max_tokens=1500, timeout_ms=100_000) as stream,
            socket.create_connection((address.hostname, address.port), timeout=60) as slow,
        ):
            slow.sendall(b"GET / HTTP/1.1\r\n")
            assert stream.readline().startswith(b"data: ")
            limited = pool.submit(lambda: json.load(post(server, timeout_ms=1500)))
            wait_until(lambda: len(server.get("/v1/requests")["data"]) == 2)
            jump(days * DAY_S)
            created = json.load(post(server, max_tokens=1))["created"]
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
            whole = limited.result()
            assert whole["choices"][0]["finish_reason"] == "length"
            assert any("timeout_ms" in warning for warning in whole["warnings"])
            rest = stream.read()
            assert rest.endswith(b"data: [DONE]\n\n")
            assert rest.count(b"\n\n") > 1500 - 10
        assert abs(created - time.time()) > DAY_S / 2  # what tells the time does follow
        assert server.engine_pids() == [engine]
        assert server.end() == 0
        assert not any("stalled" in line or "restarted" in line for line in server.lines)
