"""Speculative decoding by a real server: the answers are those without it, of a killed engine too."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest

from support.server_process import ROOT, ServerProcess
from support.waiting import wait_until

DRAFT = str(ROOT / "models" / "stories.gguf")  # the model itself
STORY = "Once upon a time there was a little dog. The dog had a red ball. One day the ball was gone. "
OFF = {"speculative.type": "none"}


@pytest.fixture(scope="module")
def server():
    options = ("--threads", "2", "--parallel", "4", "--context-size", "1024", "--draft-model", DRAFT)
    with ServerProcess(*options) as process:
        yield process


@pytest.fixture(params=["ngram-simple", "draft-simple"])
def on(request):
    return {"speculative.type": request.param}


def ask(server: ServerProcess, path: str, body: dict) -> dict:
    answer = httpx.post(server.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 0.8, "seed": 7, "repeat_penalty": 1.1, "logprobs": 2},
        {"temperature": 0, "stop": ["ball"], "max_tokens": 60},
        {"temperature": 0.9, "seed": 1, "n": 3},
        {"temperature": 0, "response_format": {"type": "json_object"}, "max_tokens": 40},
    ],
    ids=str,
)
def test_answers_with_drafts_equal_those_without(server, on, fields):
    body = {"prompt": STORY * 3, "max_tokens": 80, "ignore_eos": True, **fields}
    if "response_format" in body:
        del body["ignore_eos"]
    without, with_drafts = (ask(server, "/v1/completions", {**body, **more}) for more in (OFF, on))
    assert with_drafts["choices"] == without["choices"]
    assert with_drafts["usage"]["completion_tokens"] == without["usage"]["completion_tokens"]
    assert with_drafts["timings"]["predicted_n"] == without["timings"]["predicted_n"]
    assert without["timings"]["draft_n"] == 0


def test_repetitive_text_gets_accepted_drafts(server):
    """By n-gram lookup. Whether those of so small a draft model pay is measured: see test_draft_model.py."""
    on = {"speculative.type": "ngram-simple"}
    body = {"prompt": STORY * 3, "n_predict": 150, "temperature": 0, "ignore_eos": True, **on}
    timings = ask(server, "/completion", body)["timings"]
    assert timings["draft_n"] >= timings["draft_accepted"] == timings["draft_n_accepted"] > 0
    assert timings["predicted_n"] == 150
    for name in ("ggserve_draft_accepted_tokens_total", "llamacpp:spec_decode_num_accepted_tokens_total"):
        wait_until(lambda name=name: metric(server, name) >= timings["draft_accepted"])


def metric(server: ServerProcess, name: str) -> float:
    """Of the first series."""
    lines = httpx.get(server.url + "/metrics", timeout=60).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_stream_continues_after_its_engine_was_killed(server, on):
    body = {
        "prompt": STORY * 3,
        "max_tokens": 120,
        "temperature": 0.8,
        "seed": 5,
        "ignore_eos": True,
        "return_tokens": True,
    }
    expected = ask(server, "/v1/completions", {**body, **OFF})["choices"][0]
    text, killed = "", False
    request = {**body, **on, "stream": True}
    with httpx.stream("POST", server.url + "/v1/completions", json=request, timeout=120) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            text += "".join(choice["text"] for choice in event["choices"])
            if not killed and len(text) > 20:
                killed = True
                for pid in server.engine_pids():
                    os.kill(pid, signal.SIGKILL)
    assert killed
    assert text == expected["text"]
    assert event["timings"]["predicted_n"] == 120
