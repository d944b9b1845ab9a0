"""Streams that go on when their context is full."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.fakes.engine import tokenizer
from support.server_process import ServerProcess

N_CTX = 64
PROMPT = [1, *tokenizer().encode("Once upon a time, there was a little girl", add_special=False)]
BODY = {"temperature": 0, "ignore_eos": True, "return_tokens": True, "cache_prompt": False}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    options = ("--model", "stories", "--context-size", str(N_CTX), "--context-shift", "--threads", "1")
    with ServerProcess(*options, "--parallel", "2") as process:
        yield process
        assert process.end() == 0


def complete(server: ServerProcess, prompt: list[int], **more: object) -> dict[str, Any]:
    answer = httpx.post(server.url + "/completion", json=BODY | {"prompt": prompt} | more, timeout=120)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("n_keep", [0, 5, -1])
def test_shifted_context_continues_like_a_prompt_of_the_remaining_tokens(
    server: ServerProcess, n_keep: int
) -> None:
    n = 150
    answer = complete(server, PROMPT, n_predict=n, n_keep=n_keep)
    window, expected = list(PROMPT), list[int]()
    n_kept = (len(PROMPT) if n_keep < 0 else n_keep) + 1  # and the token of the beginning
    while len(expected) < n:
        part = complete(server, window, n_predict=min(N_CTX - len(window), n - len(expected)))["tokens"]
        expected += part
        window += part
        window = window[:n_kept] + window[n_kept + (N_CTX - 1 - n_kept) // 2 :]
    assert answer["tokens"] == expected
    assert (answer["truncated"], answer["stop_type"]) == (True, "limit")
    assert (answer["timings"]["prompt_n"], answer["timings"]["predicted_n"]) == (len(PROMPT), n)
    assert (answer["tokens_predicted"], answer["generation_settings"]["n_keep"]) == (n, n_keep)
    assert answer["tokens_cached"] < N_CTX
    assert "warnings" not in answer


def test_a_context_that_is_just_full_is_not_truncated(server: ServerProcess) -> None:
    n = N_CTX - len(PROMPT)
    assert [complete(server, PROMPT, n_predict=n + i)["truncated"] for i in (0, 1)] == [False, True]


def test_a_stream_continues_beyond_the_context_after_its_engine_was_killed(server: ServerProcess) -> None:
    more = {"n_predict": 400, "n_keep": 3, "repeat_penalty": 1.1, "repeat_last_n": -1}
    expected = complete(server, PROMPT, **more)["tokens"]
    tokens, killed = list[int](), list[int]()
    body = BODY | {"prompt": PROMPT, "stream": True} | more
    with httpx.stream("POST", server.url + "/completion", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                tokens += json.loads(line.removeprefix("data: ")).get("tokens", [])
                if len(tokens) >= 120 and not killed:
                    killed = list(server.engine_pids())
                    for pid in killed:
                        os.kill(pid, signal.SIGKILL)
    assert killed
    assert tokens == expected


def test_chat_continues_beyond_the_context_and_counts_what_it_wrote(server: ServerProcess) -> None:
    body = {"prompt": "Once", "max_tokens": 100, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(server.url + "/v1/completions", json=body, timeout=120).json()
    assert answer["usage"]["completion_tokens"] == 100
    assert answer["choices"][0]["finish_reason"] == "length"
    too_long = httpx.post(server.url + "/v1/completions", json={**body, "prompt": [5] * N_CTX}, timeout=120)
    assert too_long.status_code == 400
