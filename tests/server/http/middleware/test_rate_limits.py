"""Limits of keys over HTTP: who is refused, in which words, and what the headers tell."""

from __future__ import annotations

import asyncio

import anthropic
import ollama
import openai
import pytest

from server.http.middleware.rate_limits import HEADERS, duration
from server.worker.errors import QueueFull
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine, make_app, serving
from support.waiting import until

pytestmark = pytest.mark.asyncio
BODY = {"prompt": "Once upon a time", "max_tokens": 5}
N_PROMPT = 5


def limited(tmp_path, limits: str, engine: FakeEngine | None = None):
    file = tmp_path / "keys"
    file.write_text(f"a name=a {limits}\nb name=b\n")
    file.chmod(0o600)
    return make_app(engine or FakeEngine(eos=False), api_key_file=file)


def key(name: str = "a") -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


def headers_of(response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name in HEADERS}


async def test_requests_per_minute_are_limited_and_reported(tmp_path):
    async with client(limited(tmp_path, "rpm=2")) as http:
        first = await http.post(COMPLETIONS, json=BODY, headers=key())
        assert headers_of(first).keys() == {
            f"x-ratelimit-{w}-requests" for w in ("limit", "remaining", "reset")
        }
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert (await http.post(CHAT, json={"messages": user("x")}, headers=key())).status_code == 200
        refused = await http.post(COMPLETIONS, json=BODY, headers=key())
        error = error_of(refused, 429)
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert "requests per minute: 2)" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-should-retry"] == "true"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        # Others are not affected, and what reads or cancels is free.
        other = await http.post(COMPLETIONS, json=BODY, headers=key("b"))
        assert (other.status_code, headers_of(other)) == (200, {})
        assert (await http.get("/v1/requests", headers=key())).status_code == 200
        assert (await http.delete("/v1/requests/x", headers=key())).status_code == 404
        assert (await http.post("/v1/responses/x/cancel", headers=key())).status_code == 404


async def test_tokens_of_prompts_and_answers_count(tmp_path):
    engine = FakeEngine(eos=False)
    async with client(limited(tmp_path, "tpm=1000", engine)) as http:
        body = {**BODY, "n": 2}
        usage = (await http.post(COMPLETIONS, json=body, headers=key())).json()["usage"]
        answer = await http.post("/v1/embeddings", json={"input": ["one", "two"]}, headers=key())
        left = int(answer.headers["x-ratelimit-remaining-tokens"])
        spent = usage["total_tokens"] + answer.json()["usage"]["total_tokens"]
        assert usage["completion_tokens"] == 10
        assert 1000 - spent <= left < 1000 - spent + 200  # some came back meanwhile


async def test_prompt_over_the_token_limit_is_refused_before_it_is_computed(tmp_path):
    engine = FakeEngine(eos=False)
    async with client(limited(tmp_path, "tpm=20", engine)) as http:
        body = {"prompt": [11] * 12, "max_tokens": 1}
        assert (await http.post(COMPLETIONS, json=body, headers=key())).status_code == 200
        for extra in ({}, {"stream": True}):
            refused = await http.post(COMPLETIONS, json={**body, **extra}, headers=key())
            assert "tokens per minute: 20)" in error_of(refused, 429)["message"]
        refused = await http.post("/v1/embeddings", json={"input": [[11] * 12]}, headers=key())
        assert error_of(refused, 429)["code"] == "rate_limit_exceeded"
        assert len(engine.seen) == 1
        assert not engine.works
        assert (await http.get("/v1/requests", headers=key())).json()["data"] == []


async def test_requests_refused_by_a_full_queue_cost_no_tokens(tmp_path):
    engine = FakeEngine(eos=False)
    engine.full = True
    async with client(limited(tmp_path, "tpm=1000", engine)) as http:
        for path, body in (
            (COMPLETIONS, {"prompt": [11] * 100}),
            (COMPLETIONS, {"prompt": [11] * 100, "stream": True, "n": 2}),
            ("/v1/embeddings", {"input": [[11] * 100]}),
            ("/v1/responses", {"input": "Once " * 40, "background": True}),
        ):
            refused = await http.post(path, json=body, headers=key())
            assert error_of(refused, 429)["code"] == "queue_full"
            assert refused.headers["x-ratelimit-remaining-tokens"] == "1000"


class Narrow(FakeEngine):
    """Has eight places."""

    def ensure_room(self, n: int = 1) -> None:
        if len(self._streams) + n > 8:
            raise QueueFull(len(self._streams), 1.0)


async def test_client_takes_at_most_half_of_the_free_queue(tmp_path):
    async def fill(http, name: str) -> int:
        """The number of requests that are admitted."""
        n = engine.stats.running
        while True:
            task = asyncio.create_task(http.post(COMPLETIONS, json=BODY, headers=key(name)))
            running.append(task)
            admitted = n + 1
            await until(lambda task=task, admitted=admitted: task.done() or engine.stats.running == admitted)
            if task.done():
                assert error_of(task.result(), 429)["code"] == "queue_full"
                return n
            n = admitted

    for keys, admitted in (("a", 8), ("ab", (5, 7))):
        engine, running = Narrow(eos=False), []
        engine.gate.clear()
        app = make_app(engine, api_key=[*keys], parallel=1)
        async with client(app) as http:
            if len(keys) == 1:
                assert await fill(http, "a") == admitted
            else:
                assert (await fill(http, "a"), await fill(http, "b")) == admitted
            engine.gate.set()
            await asyncio.gather(*running)


async def test_concurrent_requests_are_limited(tmp_path):
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 10_000
    async with client(limited(tmp_path, "concurrency=1", engine)) as http:
        body = {"prompt": "Once", "stream": True}
        running = asyncio.create_task(http.post(COMPLETIONS, json=body, headers=key()))
        await until(lambda: engine.stats.running)
        refused = await http.post("/tokenize", json={"content": "x"}, headers=key())
        assert "concurrent requests: 1)" in error_of(refused, 429)["message"]
        assert (await http.post("/tokenize", json={"content": "x"}, headers=key("b"))).status_code == 200
        (job,) = (await http.get("/v1/requests", headers=key())).json()["data"]
        await http.delete(f"/v1/requests/{job['id']}", headers=key())
        await running
        assert (await http.post("/tokenize", json={"content": "x"}, headers=key())).status_code == 200


async def test_background_response_counts_as_concurrent_until_it_ends(tmp_path):
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 10_000
    async with client(limited(tmp_path, "concurrency=1", engine)) as http:
        body = {"input": "Once", "background": True}
        started = (await http.post("/v1/responses", json=body, headers=key())).json()
        refused = await http.post("/v1/responses", json=body, headers=key())
        assert error_of(refused, 429)["code"] == "rate_limit_exceeded"
        cancelled = await http.post(f"/v1/responses/{started['id']}/cancel", headers=key())
        assert cancelled.status_code == 200
        assert (await http.post("/tokenize", json={"content": "x"}, headers=key())).status_code == 200


async def test_official_clients_recognize_the_refusal(tmp_path):
    def ask(base: str) -> list[object]:
        updates: list[object] = []
        try:
            with openai.OpenAI(base_url=base + "/v1", api_key="a", max_retries=0) as api:
                api.completions.create(model="stories", prompt="x", max_tokens=1)
                api.completions.create(model="stories", prompt="x", max_tokens=1)
        except openai.RateLimitError as error:
            updates.append((error.code, error.response.headers["x-ratelimit-remaining-requests"]))
        try:
            with anthropic.Anthropic(base_url=base, api_key="a", max_retries=0) as api:
                api.messages.create(model="stories", max_tokens=1, messages=user("x"))
        except anthropic.RateLimitError as error:
            updates.append((error.body["error"]["type"], int(error.response.headers["retry-after"]) > 0))
        try:
            ollama.Client(base, headers=key()).generate("stories", "x")
        except ollama.ResponseError as error:
            updates.append((error.status_code, "requests per minute" in error.error))
        return updates

    with serving(limited(tmp_path, "rpm=1")) as base:
        reported = await asyncio.to_thread(ask, base)
    assert reported == [("rate_limit_exceeded", "0"), ("rate_limit_error", True), (429, True)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0171, "18ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3723, "1h2m3s")],
)
async def test_durations_have_the_format_of_openai(seconds, text):
    assert duration(seconds) == text
