"""Memory runs out, of the engine or of the server: an error or a new engine, and then all goes on."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
import pytest

from support.server_process import BUNDLED, COMMAND, ROOT, ServerProcess

MIB = 1 << 20
BODY = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


def post(server: ServerProcess, path: str = "/v1/completions", **fields: Any) -> tuple[int, Any]:
    body = json.dumps(fields).encode()
    try:
        with urlopen(
            Request(server.url + path, body, {"content-type": "application/json"}), timeout=120
        ) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def short_of_memory(pid: int, more: int) -> Iterator[None]:
    """The process may have `more` bytes than it has now."""
    size = psutil.Process(pid).memory_info().vms + more
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    yield
    if psutil.pid_exists(pid):  # an engine that was replaced is gone
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_start_without_memory_for_the_model_ends_with_one_error():
    command = [*COMMAND, "serve", "--port", "0", *BUNDLED, "--threads", "1", "--kv-cells", "2000000"]
    limit = 2 << 30  # of which the cache alone needs 4
    done = subprocess.run(
        command,
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1
    assert "model 'stories' cannot be loaded: device CPU has no room for" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more", [0, MIB])
def test_an_engine_without_memory_is_replaced_and_its_requests_are_answered(more, tmp_path):
    long = {**BODY, "prompt": "The little dog " * 500}
    with ServerProcess(
        "--threads", "1", "--context-size", "4096", "--slot-save-path", str(tmp_path)
    ) as server:
        expected = [post(server, **body)[1]["choices"][0]["text"] for body in (long, BODY)]
        for act in ("compute", "save"):
            (pid,) = server.engine_pids()
            with short_of_memory(pid, more):
                if act == "compute":
                    replies = [post(server, **body, cache_prompt=False) for body in (long, BODY)]
                    assert [(status, body["choices"][0]["text"]) for status, body in replies] == [
                        (200, text) for text in expected
                    ]
                else:
                    status, _ = post(server, "/slots/0?action=save", filename="a.bin")
        names = [path.name for path in tmp_path.iterdir()]
        assert names == (["a.bin"] if status == 200 else [])
        if names:
            assert post(server, "/slots/0?action=restore", filename="a.bin")[0] == 200
        assert post(server, **BODY)[0] == 200
        assert server.end() == 0
        assert more or any("has been restarted" in line for line in server.lines)


def test_a_server_without_memory_refuses_a_large_body_and_answers_the_next():
    with ServerProcess("--threads", "1") as server:
        assert post(server, **BODY)[0] == 200
        with short_of_memory(server.process.pid, 12 * MIB):
            with suppress(URLError):  # it could not even read all of it
                assert post(server, **{**BODY, "prompt": "a" * 7_500_000})[0] >= 400
            assert post(server, **BODY)[0] == 200
        assert post(server, **BODY)[0] == 200
        assert server.end() == 0
