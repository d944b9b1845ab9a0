"""A server with a hybrid of 24 layers, or one with windows: turns of chats, and an engine that is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.builders.golden import TinyModel, golden
from support.builders.hybrid import hybrid_model
from support.server_process import ServerProcess
from support.waiting import wait_until

PROMPT = golden("qwen35").prompt
SYSTEM = " ".join(f"Rule {i}: never say {i * i} or {i * i * i}." for i in range(12))
QUESTIONS = [
    f"{word}, in the {word} of all the other {word}s, is what I see?" for word in ("Cat", "Dog", "Owl")
]
ANSWER = {"n_predict": 200, "temperature": 0, "ignore_eos": True, "return_tokens": True}


def model(kind: str, folder: Path) -> Path:
    """A hybrid, or a model with windows of 32."""
    path = folder / "model.gguf"
    if kind == "hybrid":
        return hybrid_model(path, 2048)
    windows = TinyModel.read(golden("gemma3").path)
    windows.set("context_length", 2048)
    return windows.write(path)


@pytest.fixture(scope="module", params=["hybrid", "windows"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    path = model(request.param, tmp_path_factory.mktemp(request.param))
    with ServerProcess("--model", str(path), "--threads", "1", "--parallel", "2") as process:
        yield process
        assert process.end() == 0


# As templates of reasoning models are: a new answer begins with reasoning, earlier ones are shown without.
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1] | trim }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""


@pytest.fixture(scope="module", params=["hybrid", "windows"])
def reasoning(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "template.jinja").write_text(TEMPLATE)
    path = model(request.param, folder)
    options = ("--threads", "1", "--parallel", "2", "--chat-template", str(folder / "template.jinja"))
    with ServerProcess("--model", str(path), *options, "--checkpoint-interval", "4096") as process:
        yield process
        assert process.end() == 0


def test_chats_with_one_system_prompt_compute_their_own_turns(reasoning: ServerProcess) -> None:
    def cached(*contents: str) -> int:
        """How many tokens of the prompt were cached."""
        roles = ("system", "user", "assistant", "user")
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
        body = {"messages": messages, "max_tokens": 20, "temperature": 0}
        answer = httpx.post(reasoning.url + "/v1/chat/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["reasoning_content"]
        return answer.json()["timings"]["cached_n"]

    def n_tokens(text: str) -> int:
        body = {"content": text, "add_special": True}
        return len(httpx.post(reasoning.url + "/tokenize", json=body).json()["tokens"])

    def room() -> dict[str, int]:
        cache: dict[str, int] = httpx.get(reasoning.url + "/props").json()["cache"]
        return cache

    wait_until(lambda: room()["cells_total"] == 2 * 2048)  # at once, not after a first request
    system = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    assert cached(SYSTEM, QUESTIONS[0]) < 10
    for question in QUESTIONS[1:]:
        assert cached(SYSTEM, question) == n_tokens(system)
    # What the template put behind the first question is not in this prompt.
    assert cached(SYSTEM, QUESTIONS[0], "Yes.", QUESTIONS[2]) >= n_tokens(system + QUESTIONS[0])
    wait_until(lambda: room()["cells_used"] == 0)
    left = room()
    assert left["cells_cached"] > n_tokens(system)
    assert (left["window_rows_cached"] > 0) is (left["window_rows_total"] > 0)


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
