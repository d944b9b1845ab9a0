"""Chat completions and their chunks."""

from __future__ import annotations

import pytest

from support.api.http import CHAT, client, events, text_of, user
from support.fakes.engine import TEXT, FakeEngine, ids

pytestmark = pytest.mark.asyncio


async def test_order_of_chunks():
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


async def test_each_choice_begins_with_its_role():
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


async def test_logprobs_are_the_same_whole_and_streamed():
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
