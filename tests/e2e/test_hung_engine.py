"""A real engine process is stopped in the middle of a stream (SIGSTOP): noticed, replaced, nothing lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.fakes.engine_client import alive
from support.server_process import ServerProcess

BODY = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--threads", "1", "--context-size", "4096", "--parallel", "2") as process:
        yield process
        assert process.end() == 0


def post(server: ServerProcess, **fields: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    body = json.dumps({**BODY, **fields})
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    return connection, connection.getresponse()


def text_of(lines: list[bytes]) -> str:
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    return "".join(choice["text"] for event in events for choice in event["choices"])


def health(server: ServerProcess) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as connection:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status, json.load(response)["status"]


def test_stopped_engine_is_detected_and_replaced_and_its_stream_continues(server):
    connection, response = post(server)
    with closing(connection):
        expected = json.load(response)["choices"][0]["text"]
    connection, response = post(server, stream=True)
    with closing(connection):
        lines = [response.readline() for _ in range(20)]
        (pid,) = server.engine_pids()
        os.kill(pid, signal.SIGSTOP)
        limited, answer = post(server, prompt="The little dog", timeout_ms=1000)
        with closing(limited):
            whole = json.load(answer)
        assert whole["choices"][0]["text"] == ""
        assert any("timeout_ms" in warning for warning in whole["warnings"])
        while (state := health(server)) == (200, "ok"):
            assert alive(pid)
            time.sleep(0.05)
        assert state == (503, "stalled")
        server.wait_for("the engine has sent no heartbeat for .* and was killed")
        lines += response.readlines()
    assert text_of(lines) == expected
    assert not alive(pid)
    server.wait_for("the engine has been restarted")
    assert health(server) == (200, "ok")
