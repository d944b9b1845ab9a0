"""A server with a hybrid of 24 layers: turns of a chat, and an engine that is killed while it answers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from support.builders.golden import golden
from support.builders.hybrid import hybrid_model
from support.server_process import ServerProcess

PROMPT = golden("qwen35").prompt
ANSWER = {"n_predict": 200, "temperature": 0, "ignore_eos": True, "return_tokens": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = hybrid_model(tmp_path_factory.mktemp("hybrid") / "model.gguf", 1024)
    with ServerProcess("--model", str(path), "--threads", "1", "--parallel", "2") as process:
        yield process
        assert process.end() == 0


def complete(server: ServerProcess, prompt: list[int], **more: object) -> dict:
    body = ANSWER | {"prompt": prompt} | more
    answer = httpx.post(server.url + "/completion", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_second_turn_computes_only_its_own_tokens(server: ServerProcess) -> None:
    first = complete(server, PROMPT[:100], n_predict=20)
    chat = [*PROMPT[:100], *first["tokens"], *PROMPT[100:110]]
    second = complete(server, chat, n_predict=20)
    assert (second["timings"]["cached_n"], second["timings"]["prompt_n"]) == (119, 11)
    assert second["tokens"] == complete(server, chat, n_predict=20, cache_prompt=False)["tokens"]


def test_an_answer_continues_where_the_engine_was_killed(server: ServerProcess) -> None:
    expected = complete(server, PROMPT[:120], n_predict=800, cache_prompt=False)["tokens"]
    tokens: list[int] = []
    killed: list[int] = []
    body = ANSWER | {"prompt": PROMPT[:120], "n_predict": 800, "stream": True}
    with httpx.stream("POST", server.url + "/completion", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                tokens += json.loads(line.removeprefix("data: ")).get("tokens", [])
                if len(tokens) >= 3 and not killed:
                    killed = list(server.engine_pids())
                    for pid in killed:
                        os.kill(pid, signal.SIGKILL)
    assert killed
    assert tokens[: len(expected)] == expected
    chat = [*PROMPT[:120], *expected, *PROMPT[130:140]]
    third = complete(server, chat, n_predict=20)
    assert third["timings"]["prompt_n"] == 11  # the new engine has its checkpoints too
    assert third["tokens"] == complete(server, chat, n_predict=20, cache_prompt=False)["tokens"]
