"""The whole: a real server process, a real engine process, the bundled model, the official client."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import openai
import pytest

from support.fakes.engine_client import alive
from support.server_process import ROOT, ServerProcess

MODEL = ROOT / "models" / "stories.gguf"
PROMPTS = ["Once upon a time", "The little dog", "One day, a girl named", "Tom and his mom went"]
GREEDY = {"model": "stories", "temperature": 0}


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--threads", "1") as process:
        yield process
        assert process.end() == 0


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


class Text(NamedTuple):
    """A greedy completion: its tokens, and at each step how far the best was ahead of the second."""

    tokens: list[str]
    margins: list[float]

    def __str__(self) -> str:
        return "".join(self.tokens)


def streamed(client: openai.OpenAI, prompt: str, n: int, on_piece=None, **extra) -> Text:
    """A greedy completion, piece by piece."""
    text = Text([], [])
    with client.completions.create(
        prompt=prompt, max_tokens=n, stream=True, logprobs=2, extra_body=extra, **GREEDY
    ) as stream:
        for chunk in stream:
            if chunk.choices and (logprobs := chunk.choices[0].logprobs):
                text.tokens.extend(logprobs.tokens)
                for top in logprobs.top_logprobs:
                    best, second = sorted(top.values(), reverse=True)[:2]
                    text.margins.append(best - second)
                if on_piece is not None:
                    on_piece()
    return text


def server_tokens(client: openai.OpenAI, text: str) -> list[int]:
    url = str(client.base_url).removesuffix("v1/") + "tokenize"
    return client.post(url, cast_to=dict, body={"content": text, "add_special": True})["tokens"]


def assert_same(got: Text, expected: Text) -> None:
    """Equal up to a near-tie, where kernels that round differently may choose either."""
    for i, (a, b) in enumerate(zip(got.tokens, expected.tokens, strict=False)):
        if a != b:
            margin = min(got.margins[i], expected.margins[i])
            assert margin < 1e-3, f"step {i}: {a!r} != {b!r} although the margin is {margin}"
            return
    assert len(got.tokens) == len(expected.tokens)


def healthy(server: ServerProcess) -> dict:
    """/health once it says 200: 503 is right until a restarted engine is ready."""
    end = time.monotonic() + 30
    while True:
        try:
            return server.get("/health")
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503 or time.monotonic() > end:
                    raise
        time.sleep(0.02)


@contextmanager
def endless_stream(server: ServerProcess) -> Iterator[None]:
    """A stream that would go on for long, of which only the beginning was read."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    body = {"prompt": PROMPTS[0], "stream": True, "ignore_eos": True, **GREEDY}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    with closing(connection), connection.getresponse() as answer:
        assert answer.read(100)
        yield


def test_health_and_models_show_the_placement(server, client):
    health = server.get("/health")
    assert health["status"] == "ok"
    assert health["models"]["stories"]["placement"]
    assert [model.id for model in client.models.list()] == ["stories"]


def test_completions_streamed_equals_whole(client):
    whole = client.completions.create(prompt=PROMPTS[0], max_tokens=40, **GREEDY)
    assert whole.choices[0].text.startswith(", there was a little girl named Lily.")
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 40
    assert str(streamed(client, PROMPTS[0], 40)) == whole.choices[0].text


def test_chat_streamed_equals_whole(client):
    messages = [{"role": "user", "content": "a story about a cat"}]
    whole = client.chat.completions.create(messages=messages, max_tokens=60, **GREEDY)
    text = whole.choices[0].message.content
    assert len(text) > 50
    with client.chat.completions.create(
        messages=messages, max_tokens=60, stream=True, stream_options={"include_usage": True}, **GREEDY
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_concurrent_streams_give_the_texts_that_each_gives_alone(client):
    alone = [streamed(client, prompt, 60) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: streamed(client, prompt, 60), PROMPTS * 2))
    for got, expected in zip(together, alone * 2, strict=True):
        assert_same(got, expected)


def test_the_same_prefix_is_computed_once(client):
    prompt = " ".join(PROMPTS) + " and they had a picnic in the park."
    options = {"prompt": prompt, "max_tokens": 10, **GREEDY}
    client.completions.create(**options)
    again = client.completions.create(**options)
    fresh = client.completions.create(**options, extra_body={"cache_prompt": False})
    assert again.timings["cached_n"] > 10
    assert fresh.timings["cached_n"] == 0
    assert again.choices[0].text == fresh.choices[0].text


def test_echoed_text_has_the_log_probabilities_of_its_generation(client):
    options = {"logprobs": 2, "model": "stories"}
    reply = client.completions.create(
        prompt=PROMPTS[0], max_tokens=24, seed=3, extra_body={"return_tokens": True}, **options
    ).choices[0]
    prompt = client.completions.create(prompt=PROMPTS[0], echo=True, max_tokens=0, **options).choices[0]
    ids = [*server_tokens(client, PROMPTS[0]), *reply.tokens]
    echoed = client.completions.create(prompt=ids, echo=True, max_tokens=0, **options).choices[0]
    assert echoed.logprobs.tokens == prompt.logprobs.tokens + reply.logprobs.tokens
    expected = prompt.logprobs.token_logprobs + reply.logprobs.token_logprobs
    assert expected[0] is None
    assert echoed.logprobs.token_logprobs[1:] == pytest.approx(expected[1:], abs=2e-3)
    assert [set(top) for top in echoed.logprobs.top_logprobs[-24:]] == [
        set(top) for top in reply.logprobs.top_logprobs
    ]


@pytest.mark.parametrize("n_batch", [1, 8, 64, 512])
def test_the_batch_size_of_a_session_does_not_change_its_text(client, n_batch):
    prompt = "Once upon a time there was a dog. He lived in a house. " * 6
    expected = streamed(client, prompt, 30, cache_prompt=False)
    assert_same(streamed(client, prompt, 30, cache_prompt=False, batch_size=n_batch), expected)


def test_kill_9_of_the_engine_continues_streams_with_the_same_text(server, client):
    # Long texts, and killed early: the model is so quick that short ones would be done before.
    alone = [streamed(client, prompt, 450, ignore_eos=True) for prompt in PROMPTS]
    restarts = server.get("/health")["models"]["stories"]["restarts"]
    pieces = threading.Semaphore(0)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        futures = [
            pool.submit(streamed, client, prompt, 450, pieces.release, ignore_eos=True) for prompt in PROMPTS
        ]
        for _ in range(20):
            assert pieces.acquire(timeout=30)
        (pid,) = server.engine_pids()
        os.kill(pid, signal.SIGKILL)
        for future, expected in zip(futures, alone, strict=True):
            assert_same(future.result(), expected)
    server.wait_for(r"the engine process was killed by SIGKILL")
    health = healthy(server)  # streams may have ended from what was sent before the kill
    assert health["models"]["stories"]["restarts"] == restarts + 1
    assert server.engine_pids() != [pid]
    assert not alive(pid)


def test_a_client_that_disconnects_frees_its_session(server):
    with endless_stream(server):
        assert len(server.get("/v1/requests")["data"]) == 1
    end = time.monotonic() + 10
    while server.get("/v1/requests")["data"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_errors_reach_the_official_client(client):
    with pytest.raises(openai.NotFoundError, match="nothing"):
        client.completions.create(model="nothing", prompt="x")
    with pytest.raises(openai.BadRequestError, match=r"\d+ tokens.*512"):
        client.completions.create(model="stories", prompt="the cat " * 2000)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(number):
    with ServerProcess("--threads", "1") as server:
        pids = server.engine_pids()
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        first = threading.Event()
        with client, ThreadPoolExecutor(1) as pool:
            future = pool.submit(streamed, client, PROMPTS[0], 400, first.set, ignore_eos=True)
            assert first.wait(30)
            server.process.send_signal(number)
            assert len(future.result().tokens) == 400
        assert server.wait() == 0
        assert not any(map(alive, pids))
        assert not any(re.search("Traceback|ERROR", line) for line in server.lines)


def test_sighup_reads_keys_again_and_ends_no_request(tmp_path):
    keys, config = tmp_path / "keys", tmp_path / "ggserve.yml"
    keys.write_text("one\n")
    keys.chmod(0o600)
    config.write_text(f"api_key_file: {keys}\nmax_queue: 5\n")
    with ServerProcess("--threads", "1", "--config", str(config)) as server:
        config.write_text(f"api_key_file: {keys}\nmax_queue: 6\nparallel: 3\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("read the API keys of 1 clients")
        server.wait_for("these options have changed and are in effect: max_queue$")
        server.wait_for("these options have changed but need a restart: parallel$")
        config.write_text("max_queue: many\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("max_queue must be .*; the options are unchanged$")
        assert server.end() == 0


LONG = ("--threads", "1", "--context-size", "100000", "--parallel", "1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once_with_its_exit_status(number):
    with ServerProcess(*LONG) as server:
        pids = server.engine_pids()
        with endless_stream(server):
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(r"stopping: 1 requests have 30 s")
            assert server.end(number) == 128 + number
        assert not any(map(alive, pids))
        assert not any("Traceback" in line for line in server.lines)


def test_truncated_model_file_ends_only_the_engine(tmp_path):
    path = tmp_path / "mine.gguf"
    shutil.copy(MODEL, path)
    with ServerProcess("--threads", "1", "--model", str(path)) as server:
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            client.completions.create(model="mine", prompt=PROMPTS[0], max_tokens=3)
            os.truncate(path, 1000)
            with pytest.raises(openai.APIStatusError) as caught:
                client.completions.create(model="mine", prompt=PROMPTS[1], max_tokens=3)
        assert caught.value.status_code == 503
        assert str(tmp_path) not in caught.value.response.text
        server.wait_for(r"killed by SIGBUS \(model file truncated\?\)")
        server.wait_for(r"mine.gguf: corrupt")
        with pytest.raises(urllib.error.HTTPError, match="503") as unhealthy:
            server.get("/health")
        unhealthy.value.close()
        assert server.end() == 0


def test_kill_9_of_the_server_ends_its_engine():
    with ServerProcess() as server:
        (pid,) = server.engine_pids()
        server.end(signal.SIGKILL)
        end = time.monotonic() + 5
        while alive(pid):
            assert time.monotonic() < end
            time.sleep(0.01)
