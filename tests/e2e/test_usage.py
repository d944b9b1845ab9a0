"""Usage is what a real engine computed: several prompts and choices, cached prompts, streams that are cut."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator

import httpx
import pytest

from support.server_process import ServerProcess
from support.waiting import wait_until

PROMPT = "Once upon a time there was a little cat who lived in"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--threads", "1", "--use-gpu", "false", "--log-format", "json") as process:
        yield process


def post(server: ServerProcess, path: str, body: dict) -> dict:
    return httpx.post(server.url + path, json=body, timeout=60).raise_for_status().json()


def counters(server: ServerProcess) -> dict[str, float]:
    """prompt, cached and predicted tokens so far."""
    text = httpx.get(server.url + "/metrics").text
    return {
        name: float(re.search(rf'^ggserve_{name}_tokens_total{{model="stories"}} (\S+)$', text, re.M)[1])
        for name in ("prompt", "cached", "predicted")
    }


def ids(server: ServerProcess, text: str) -> list[int]:
    return post(server, "/tokenize", {"content": text, "add_special": True})["tokens"]


def test_usage_counts_prompts_choices_and_cached_tokens(server: ServerProcess) -> None:
    before = counters(server)
    body = {"prompt": [PROMPT, PROMPT + " a big", [5, 6, 7]], "n": 2, "max_tokens": 5, "ignore_eos": True}
    n_prompt = len(ids(server, PROMPT)) + len(ids(server, PROMPT + " a big")) + 3
    usages = []
    for _ in range(2):
        answer = post(server, "/v1/completions", {**body, "return_tokens": True})
        assert [len(choice["tokens"]) for choice in answer["choices"]] == [5] * 6
        usages.append(answer["usage"])
    assert {(u["prompt_tokens"], u["completion_tokens"], u["total_tokens"]) for u in usages} == {
        (n_prompt, 30, n_prompt + 30)
    }
    # The second time all of a prompt but its last token is found, which must be computed for its logits.
    assert usages[1]["prompt_tokens_details"]["cached_tokens"] == n_prompt - 3
    after = counters(server)
    assert after["predicted"] - before["predicted"] == 60
    assert after["prompt"] - before["prompt"] == 2 * n_prompt
    cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages)
    assert after["cached"] - before["cached"] == cached


def test_usage_counts_the_token_that_ends_a_text(server: ServerProcess) -> None:
    (end,) = post(server, "/tokenize", {"content": "."})["tokens"]
    answer = post(
        server,
        "/v1/completions",
        {
            "prompt": PROMPT,
            "temperature": 0,
            "stop_token_ids": [end],
            "return_tokens": True,
            "max_tokens": 100,
        },
    )
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(choice["tokens"]) + 1


def test_usage_of_a_cut_stream_counts_the_generated_tokens(server: ServerProcess) -> None:
    before = counters(server)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    body = {"prompt": PROMPT, "ignore_eos": True, "stream": True, "max_tokens": 400}
    connection.request(
        "POST",
        "/v1/completions",
        json.dumps(body),
        {"content-type": "application/json", "x-request-id": "cut"},
    )
    response = connection.getresponse()
    seen = 0
    while seen < 3:
        seen += response.readline().startswith(b"data: ")
    response.close()
    connection.close()
    line = json.loads(server.wait_for(r"^(\{.*\"request_id\": ?\"cut\".*\})$")[1])
    assert line["status"] in (200, 499)
    n_generated = counters(server)["predicted"] - before["predicted"]
    assert n_generated == line["predicted_n"]
    assert 3 <= n_generated < 400
    wait_until(lambda: not server.get("/v1/requests")["data"])
    assert counters(server)["predicted"] - before["predicted"] == n_generated  # nothing went on
