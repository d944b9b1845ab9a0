"""Chat and text completions and their chunks: usage, timings, echo, log-probabilities, the fingerprint."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.api.openai.choice_formatter import fingerprint
from support.api.http import CHAT, COMPLETIONS, client, events, text_of, user
from support.fakes.engine import TEXT, FakeEngine, ids

INFO: dict[str, Any] = {
    "architecture": "llama",
    "n_params": 15,
    "size_bytes": 60,
    "n_ctx": 512,
    "kv_type": "f16",
    "placement": {"CPU": [0, 1]},
    "attention": "auto",
    "path": "/models/a.gguf",
}


def test_fingerprint_has_the_form_of_llama_servers() -> None:
    assert re.fullmatch("b[0-9a-f]{10}", fingerprint(INFO))
    assert re.fullmatch("b[0-9a-f]{10}", fingerprint(None))


@pytest.mark.parametrize("name", [name for name in INFO if name != "path"])
def test_fingerprint_of_another_computation_differs(name: str) -> None:
    assert fingerprint({**INFO, name: "other"}) != fingerprint(INFO)


def test_fingerprint_of_the_same_model_at_another_path_is_equal() -> None:
    assert fingerprint({**INFO, "path": "/models/b.gguf"}) == fingerprint(INFO)


@pytest.mark.asyncio
async def test_chat_chunks_are_role_text_finish_reason_and_usage():
    async with client() as http:
        response = await http.post(
            CHAT, json={"messages": user("A cat"), "stream": True, "stream_options": {"include_usage": True}}
        )
    first, *middle, finish, usage = events(response.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in middle)
    assert finish["choices"][0]["delta"] == {}
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(ids(TEXT)) + 1
    assert text_of([first, *middle, finish]) == TEXT
    assert {chunk["object"] for chunk in (first, *middle, finish, usage)} == {"chat.completion.chunk"}


@pytest.mark.asyncio
async def test_chat_choices_each_begin_with_the_role():
    async with client() as http:
        whole = (await http.post(CHAT, json={"messages": user("A cat"), "n": 3})).json()
        stream = await http.post(CHAT, json={"messages": user("A cat"), "n": 3, "stream": True})
    chunks = events(stream.text)
    for i in range(3):
        own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == i]
        assert own[0]["delta"]["role"] == "assistant"
        assert "role" not in own[1]["delta"]
        assert own[-1]["finish_reason"] == "stop"
        assert text_of(chunks, i) == whole["choices"][i]["message"]["content"] == TEXT


@pytest.mark.asyncio
async def test_chat_logprobs_are_the_same_whole_and_streamed():
    async with client(FakeEngine("ß.")) as http:
        body = {"messages": user("A cat"), "logprobs": True, "top_logprobs": 2}
        whole = (await http.post(CHAT, json=body)).json()
        stream = await http.post(CHAT, json={**body, "stream": True})
    content = whole["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "ß."
    assert content[0]["token"].startswith("\\x")
    assert content[-1]["token"] == "."
    assert [entry["logprob"] for entry in content[0]["top_logprobs"]] == [-0.5, -1.5]
    parts = [c["logprobs"] for chunk in events(stream.text) for c in chunk["choices"] if c["logprobs"]]
    assert [entry for part in parts for entry in part["content"]] == content


@pytest.mark.asyncio
async def test_usage_chunk_comes_last_and_others_have_null():
    async with client() as http:
        response = await http.post(
            COMPLETIONS,
            json={
                "prompt": "Once",
                "stream": True,
                "max_tokens": 3,
                "stream_options": {"include_usage": True},
            },
        )
    *chunks, last = events(response.text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert last["timings"]["predicted_n"] == 3


@pytest.mark.asyncio
async def test_timings_are_in_the_last_chunk_and_in_the_whole_response():
    names = {"queue_ms", "prompt_n", "cached_n", "prompt_ms", "predicted_n", "predicted_ms", "n_batch"}
    names |= {"cache_n", "prompt_per_token_ms", "prompt_per_second"}
    names |= {"draft_n", "draft_accepted", "draft_n_accepted"}
    names |= {"predicted_per_token_ms", "predicted_per_second"}
    async with client(FakeEngine(cached_n=1)) as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "n_batch": 7})).json()
        stream = events((await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})).text)
    assert set(whole["timings"]) == set(stream[-1]["timings"]) == names
    assert whole["timings"]["n_batch"] == 7
    assert whole["timings"]["cached_n"] == 1
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert stream[-1]["timings"]["n_batch"] == 256  # the default of 512, clamped to the engine's limit


@pytest.mark.asyncio
async def test_echo_begins_the_text_with_the_prompt():
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True})).json()
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True, "stream": True})
        ids_ = (await http.post(COMPLETIONS, json={"prompt": ids("Once"), "echo": True})).json()
        nothing = await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True, "max_tokens": 0})
    assert whole["choices"][0]["text"] == ids_["choices"][0]["text"] == "Once" + TEXT
    assert text_of(events(stream.text)) == "Once" + TEXT
    assert nothing.json()["choices"][0] == {
        "index": 0,
        "text": "Once",
        "logprobs": None,
        "finish_reason": "length",
    }


@pytest.mark.asyncio
async def test_completion_logprobs_are_the_same_whole_and_streamed():
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 2, "max_tokens": 3})).json()
        zero = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 0, "max_tokens": 3})).json()
        stream = await http.post(
            COMPLETIONS, json={"prompt": "Once", "logprobs": 2, "max_tokens": 3, "stream": True}
        )
    logprobs = whole["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [" there", " was", " a"]
    assert logprobs["token_logprobs"] == [-0.5, -0.5, -0.5]
    assert logprobs["text_offset"] == [0, 6, 10]
    assert [list(top.values()) for top in logprobs["top_logprobs"]] == [[-0.5, -1.5]] * 3
    assert zero["choices"][0]["logprobs"]["top_logprobs"] is None
    parts = [c["logprobs"] for chunk in events(stream.text) for c in chunk["choices"] if c["logprobs"]]
    for name, value in logprobs.items():
        assert [x for part in parts for x in part[name]] == value


@pytest.mark.asyncio
async def test_logprobs_of_partial_characters_have_escaped_text():
    text = "ß🍕"
    async with client(FakeEngine(text)) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 0})).json()
    choice = body["choices"][0]
    assert choice["text"] == text
    *parts, end = choice["logprobs"]["tokens"]
    assert end == "</s>"
    assert all(part.startswith("bytes:\\x") for part in parts)
    assert bytes.fromhex("".join(parts).replace("bytes:", "").replace("\\x", "")).decode() == text


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.asyncio
async def test_logprobs_when_the_model_ends_the_text_include_the_end_token(echo):
    prompt = ["<s>", "A", " cat"] if echo else []
    body = {"prompt": "A cat", "echo": echo, "logprobs": 1, "return_tokens": True}
    async with client(FakeEngine(" there was")) as http:
        ended = (await http.post(COMPLETIONS, json=body)).json()["choices"][0]
        cut = (await http.post(COMPLETIONS, json={**body, "max_tokens": 2})).json()["choices"][0]
        stream = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
    assert ended["finish_reason"] == "stop"
    assert ended["logprobs"]["tokens"] == [*prompt, " there", " was", "</s>"]
    assert ended["logprobs"]["token_logprobs"][-1] == -0.5
    assert ended["logprobs"]["text_offset"][-1] == len(ended["text"])
    assert ended["text"] == cut["text"]
    assert ended["tokens"] == cut["tokens"]
    assert cut["finish_reason"] == "length"
    assert cut["logprobs"]["tokens"] == [*prompt, " there", " was"]
    parts = [chunk["choices"][0]["logprobs"] for chunk in stream]
    for name, values in ended["logprobs"].items():
        assert [value for part in parts if part for value in part[name]] == values


@pytest.mark.asyncio
async def test_echoed_logprobs_when_the_first_token_ends_the_text_keep_the_whole_prompt():
    body = {"prompt": "A cat", "echo": True, "logprobs": 1, "max_tokens": 1}
    async with client(FakeEngine([])) as http:
        choice = (await http.post(COMPLETIONS, json=body)).json()["choices"][0]
    assert choice["logprobs"]["tokens"][:-1] == ["<s>", "A", " cat"]  # who scores the prompt drops the last
