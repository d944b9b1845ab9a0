"""llama-server's extras on the OpenAI routes: times per token, progress of the prompt, the fingerprint."""

from __future__ import annotations

import pytest

from server.api.openai.choice_formatter import fingerprint
from support.api.http import CHAT, COMPLETIONS, client, events, user
from support.fakes.engine import FakeEngine, ids, make_app

PROMPT = "Once upon a time there was a little cat"
BODIES = [(COMPLETIONS, {"prompt": PROMPT}), (CHAT, {"messages": user(PROMPT)})]


async def stream(engine, path, body):
    async with client(make_app(engine)) as http:
        return events((await http.post(path, json={**body, "stream": True})).text)


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_every_chunk_with_text_has_timings_if_requested(path, body):
    chunks = await stream(FakeEngine(), path, {**body, "timings_per_token": True})
    counts = [chunk["timings"]["predicted_n"] for chunk in chunks if "timings" in chunk]
    assert counts[:3] == [1, 2, 3]
    assert len([chunk for chunk in chunks if "timings" not in chunk]) <= 1  # the role of a chat
    plain = await stream(FakeEngine(), path, body)
    assert ["timings" in chunk for chunk in plain] == [False] * (len(plain) - 1) + [True]


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("prefill_s", [0.0, 0.01])  # in one piece, in two
async def test_progress_starts_at_the_cached_tokens_and_ends_at_the_whole_prompt(path, body, prefill_s):
    engine = FakeEngine(cached_n=2, prefill_s=prefill_s)
    request_body = {**body, "return_progress": True, "timings_per_token": True}
    chunks = await stream(engine, path, request_body)
    n = len(engine.seen[0].prompt)
    progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    processed = [2, n // 2, n] if prefill_s else [2, n]
    assert [entry["processed"] for entry in progress] == processed
    assert {(entry["total"], entry["cache"]) for entry in progress} == {(n, 2)}
    first = chunks[next(i for i, chunk in enumerate(chunks) if "prompt_progress" in chunk)]
    assert (first["timings"]["prompt_n"], first["timings"]["prompt_ms"]) == (0, 0)
    assert not any("prompt_progress" in chunk for chunk in await stream(FakeEngine(), path, body))


@pytest.mark.asyncio
async def test_progress_without_stream_is_not_reported():
    async with client() as http:
        body = (await http.post(COMPLETIONS, json={"prompt": PROMPT, "return_progress": True})).json()
    assert body["choices"][0]["text"]
    assert "prompt_progress" not in body


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_fingerprint_of_one_model_is_constant(path, body):
    chunks = await stream(FakeEngine(), path, body)
    async with client() as http:
        whole = (await http.post(path, json=body)).json()
    assert {chunk["system_fingerprint"] for chunk in chunks} == {whole["system_fingerprint"]}


def test_fingerprint_changes_only_with_weights_and_devices():
    info = {"architecture": "llama", "n_params": 5, "placement": ["CPU"], "path": "/a", "plan": "1 GiB free"}
    same = {**info, "path": "/b", "plan": "2 GiB free"}
    assert fingerprint(info) == fingerprint(same)
    assert fingerprint(info).startswith("b")
    for change in ({"n_params": 6}, {"placement": ["CUDA0"]}):
        assert fingerprint({**info, **change}) != fingerprint(info)


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/chat/completions", "/models"])
async def test_paths_without_v1_answer_alike(path):
    async with client(FakeEngine(ids("Hi"))) as http:
        if path == "/models":
            assert (await http.get(path)).json() == (await http.get(f"/v1{path}")).json()
        else:
            body = (await http.post(path, json={"messages": user("Hi")})).json()
            assert body["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_verbose_shows_the_prompt_and_the_effective_settings(path, body):
    engine = FakeEngine(ids(" Hi"))
    async with client(engine) as http:
        whole = (await http.post(path, json={**body, "verbose": True, "top_k": 5})).json()
        plain = (await http.post(path, json=body)).json()
        request_body = {**body, "verbose": True, "stream": True}
        chunks = events((await http.post(path, json=request_body)).text)
    reply = whole["__verbose"]
    assert reply["prompt"].startswith("<s>")
    assert PROMPT in reply["prompt"]
    assert (reply["content"], reply["generation_settings"]["top_k"]) == (" Hi", 5)
    assert "__verbose" not in plain
    assert ["__verbose" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    async with client(make_app(FakeEngine(), log_level="debug")) as http:
        assert "__verbose" in (await http.post(path, json=body)).json()
        assert "__verbose" not in (await http.post(path, json={**body, "verbose": False})).json()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"])
async def test_token_count_of_a_chat_matches_its_prompt(path):
    async with client() as http:
        counted = (await http.post(path, json={"messages": user(PROMPT), "user": "x"})).json()
        usage = (await http.post(CHAT, json={"messages": user(PROMPT)})).json()["usage"]
    assert counted == {
        "object": "response.input_tokens",
        "input_tokens": usage["prompt_tokens"],
        "warnings": ["user has no effect"],
    }


@pytest.mark.asyncio
async def test_n_probs_returns_log_probabilities():
    async with client(FakeEngine(ids(" Hi"))) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": PROMPT, "n_probs": 2})).json()
        assert len(body["choices"][0]["logprobs"]["top_logprobs"][0]) == 2
        body = (await http.post(CHAT, json={"messages": user(PROMPT), "n_probs": 2})).json()
        assert len(body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
        body = (await http.post(CHAT, json={"messages": user(PROMPT), "n_probs": 2, "logprobs": True})).json()
        assert body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
        body = (await http.post(CHAT, json={"messages": user(PROMPT), "n_probs": 0})).json()
        assert body["choices"][0]["logprobs"] is None
