"""One deadline over queue, prefill and decode: wherever it ends a request, the answer says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until

ENDLESS = {"prompt": "Once upon a time", "ignore_eos": True}
LIMIT_MS = 2000
LONG_PROMPT = "the little dog and the big cat " * 8000  # takes much longer than that


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    options = ("--threads", "1", "--context-size", "200000", "--parallel", "1", "--kv-cells", "200000")
    with ServerProcess(*options) as process:
        yield process
        assert process.end() == 0


def post(server: ServerProcess, **fields: Any) -> Any:
    request = Request(
        server.url + "/v1/completions",
        json.dumps({**ENDLESS, "timeout_ms": LIMIT_MS, **fields}).encode(),
        {"content-type": "application/json"},
    )
    return urlopen(request, timeout=120)


def is_quiet(server: ServerProcess) -> bool:
    return not server.get("/v1/requests")["data"]


def whole(server: ServerProcess, stream: bool, **fields: Any) -> tuple[str, list[str], int]:
    """Finish reason, warnings and number of tokens, also of a stream."""
    with post(
        server, stream=stream, stream_options={"include_usage": True} if stream else None, **fields
    ) as reply:
        if not stream:
            body = json.load(reply)
            return body["choices"][0]["finish_reason"], body["warnings"], body["usage"]["completion_tokens"]
        events = [json.loads(line[6:]) for line in reply if line.startswith(b"data: {")]
    (reason,) = {choice["finish_reason"] for event in events for choice in event["choices"]} - {None}
    warnings = [warning for event in events for warning in event.get("warnings") or ()]
    return reason, warnings, events[-1]["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
def test_deadline_ends_a_request_in_any_phase(phase, stream, server):
    if phase == "queue":
        with post(server, stream=True, timeout_ms=60_000) as running:
            assert running.readline().startswith(b"data: ")
            reason, warnings, n_tokens = whole(server, stream)
            assert running.readline()  # that one goes on
    else:
        prompt = LONG_PROMPT if phase == "prefill" else ENDLESS["prompt"]
        reason, warnings, n_tokens = whole(server, stream, prompt=prompt)
    assert reason == "length"
    assert any("timeout_ms" in warning for warning in warnings)
    assert (n_tokens > 0) == (phase == "decode")
    wait_until(lambda: is_quiet(server))
