"""Disks that take nothing more. A full disk during a save: test_faults.py."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from support.server_process import BUNDLED, COMMAND, ROOT, ServerProcess, environment
from support.waiting import wait_until


def post(url: str, **fields: object) -> tuple[int, str]:
    request = Request(url, json.dumps(fields).encode(), {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("form", ["text", "json"])
def test_full_disk_for_logs_fails_no_request(form):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [*COMMAND, "serve", "--port", str(port), *BUNDLED, "--threads", "1", "--log-format", form]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=full, stderr=full)
    try:
        wait_until(lambda: process.poll() is not None or is_healthy(url), 60)
        for _ in range(3):
            assert post(url + "/v1/completions", prompt="Once", max_tokens=3)[0] == 200
        assert post(url + "/v1/completions", prompt=5)[0] == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urlopen(url + "/health", timeout=60) as reply:
            return reply.status == 200
    except OSError:
        time.sleep(0.05)
        return False


def test_folder_that_is_not_writable_fails_only_the_save():
    folder = "/proc/sys"  # where not even root can create one, as on a read-only file system
    with ServerProcess("--threads", "1", "--slot-save-path", folder) as server:
        prompt = {"prompt": "Once upon a time", "max_tokens": 3, "id_slot": 0}
        assert post(server.url + "/completion", **prompt)[0] == 200
        (pid,) = server.engine_pids()
        status, body = post(server.url + "/slots/0?action=save", filename="a.bin")
        assert (status, json.loads(body)["error"]["code"]) == (500, "not_written")
        assert folder not in body
        assert post(server.url + "/completion", **prompt)[0] == 200
        assert server.engine_pids() == [pid]
        assert server.end() == 0
        assert not any("Traceback" in line for line in server.lines)
