"""SIGTERM while streams run: they end, and until then new requests are answered instead of refused."""

from __future__ import annotations

import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.fakes.engine_client import alive
from support.server_process import ServerProcess
from support.waiting import wait_until

LONG = ("--threads", "1", "--context-size", "100000", "--parallel", "4")
MESSAGES = [{"role": "user", "content": "a story"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Once upon a time", "ignore_eos": True},
    "/v1/chat/completions": {"messages": MESSAGES, "ignore_eos": True},
    "/v1/messages": {"model": "stories", "messages": MESSAGES, "max_tokens": 90_000, "ignore_eos": True},
    "/v1/responses": {"model": "stories", "input": "a story", "ignore_eos": True},
    "/completion": {"prompt": "Once upon a time", "ignore_eos": True},
}


def connect(server: ServerProcess) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60))


def post(connection: http.client.HTTPConnection, path: str, **fields: Any) -> http.client.HTTPResponse:
    body = json.dumps({**BODIES[path], **fields})
    connection.request("POST", path, body, {"content-type": "application/json"})
    return connection.getresponse()


def test_new_requests_while_draining_are_answered_until_the_last_stream_ends():
    with ServerProcess(*LONG) as server, ExitStack() as open_streams:
        pids = server.engine_pids()
        endless = open_streams.enter_context(connect(server))
        assert post(endless, "/v1/completions", stream=True).read(100)
        finite = open_streams.enter_context(connect(server))
        stream = post(finite, "/v1/completions", stream=True, max_tokens=500)
        assert stream.read(10)
        with connect(server) as idle:
            idle.request("GET", "/health")
            assert idle.getresponse().read()
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("stopping: ")
            sock = idle.sock
            idle.request("GET", "/health")
            assert idle.sock is sock
            health = idle.getresponse()
            assert (health.status, json.load(health)["status"]) == (503, "stopping")
            assert health.headers["connection"] == "close"
        for path in BODIES:
            with connect(server) as new:
                refused = post(new, path)
                error = json.load(refused)
                assert refused.status == 503
                assert int(refused.headers["retry-after"]) > 0
                assert refused.headers["connection"] == "close"
                if path == "/v1/messages":
                    assert (error["type"], error["error"]["type"]) == ("error", "overloaded_error")
                else:
                    assert error["error"]["code"] == "shutting_down"
        with connect(server) as new:
            new.request("GET", "/v1/requests")
            running = json.load(new.getresponse())["data"]
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert server.process.poll() is None
        with connect(server) as new:
            new.request("DELETE", f"/v1/requests/{running[0]['id']}")
            assert new.getresponse().status == 200
        assert server.wait() == 0
        assert not any(map(alive, pids))
        assert not any("Traceback" in line or "ERROR" in line for line in server.lines)


def test_streams_beyond_the_drain_time_end_with_an_error_of_their_api():
    with ServerProcess(*LONG, "--drain-s", "0.5") as server, ExitStack() as streams:
        started = {}
        for path in list(BODIES)[:4]:
            started[path] = post(streams.enter_context(connect(server)), path, stream=True)
            assert started[path].read(10)
        whole = streams.enter_context(connect(server))
        with ThreadPoolExecutor(len(BODIES)) as pool:
            texts = {path: pool.submit(stream.read) for path, stream in started.items()}
            late = pool.submit(post, whole, "/completion")
            wait_until(lambda: len(server.get("/v1/requests")["data"]) == 5)
            assert server.end() == 0
            assert late.result().status == 503
            for path, future in texts.items():
                last = future.result().decode().strip().split("\n\n")[-2:]
                if path == "/v1/messages":
                    assert last[-1].startswith("event: error\n"), last
                elif path == "/v1/responses":
                    assert last[0].startswith("event: error\n"), last
                    assert last[1].startswith("event: response.failed\n"), last
                else:
                    assert '"code":"shutting_down"' in last[-2], last
                    assert last[-1] == "data: [DONE]"
        assert any("5 requests did not finish in time" in line for line in server.lines)
        assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_running_request_while_draining_is_finished(fields):
    with ServerProcess(*LONG) as server, connect(server) as connection, ThreadPoolExecutor(1) as pool:
        response = pool.submit(lambda: post(connection, "/v1/completions", max_tokens=400, **fields).read())
        wait_until(lambda: server.get("/v1/requests")["data"] or response.done())
        assert server.end() == 0
        assert b'"finish_reason":"length"' in response.result()


def test_second_signal_with_a_hung_engine_ends_at_once():
    with ServerProcess(*LONG) as server, connect(server) as connection:
        (pid,) = server.engine_pids()
        assert post(connection, "/v1/completions", stream=True).read(100)
        os.kill(pid, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping: ")
        assert server.end() == 128 + signal.SIGTERM
        assert not alive(pid)
        assert not any("Traceback" in line for line in server.lines)
