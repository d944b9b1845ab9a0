"""Fields of a chat request: what is taken, what is refused, what has no effect."""

from __future__ import annotations

import pytest

from support.api.http import CHAT, client, error_of, user
from support.fakes.engine import FakeEngine, tokenizer

pytestmark = pytest.mark.asyncio


async def test_top_logprobs_needs_logprobs():
    async with client() as http:
        response = await http.post(CHAT, json={"messages": user("A cat"), "top_logprobs": 2})
    assert error_of(response, 400)["param"] == "top_logprobs"


async def test_text_parts_are_joined():
    engine = FakeEngine()
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "cat"}]
    async with client(engine) as http:
        await http.post(CHAT, json={"messages": [{"role": "user", "content": parts}]})
    assert engine.seen[0].prompt == tokenizer().encode(
        "<|user|>A\ncat<|end|><|assistant|>", parse_special=True
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"role": "user"}], "messages[0]"),
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        (
            [*user("a"), {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}],
            "messages[1].tool_calls[0].function",
        ),
        ([{"role": "function", "content": "x", "name": "y"}], "messages[0].role"),
        ([{"role": "tool", "tool_call_id": "y"}], "messages[0]"),
        ([{"role": "user", "content": "x", "tool_call_id": "y"}], "messages[0]"),
        ([{"role": "user", "content": "x", "reasoning_content": "y"}], "messages[0]"),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call"),
    ],
)
async def test_invalid_messages_are_refused_by_name(messages, param):
    async with client() as http:
        response = await http.post(CHAT, json={"messages": messages})
    assert error_of(response, 400)["param"] == param


async def test_message_fields_without_effect_are_named():
    messages = [{"role": "assistant", "content": "x", "reasoning_content": "hm"}, *user("y")]
    messages[0] |= {"refusal": None, "mood": "good"}
    async with client() as http:
        body = (await http.post(CHAT, json={"messages": messages})).json()
    assert body["warnings"] == [
        "messages[0].mood has no effect",
        "messages[0].reasoning_content has no effect: the chat template leaves it out",
    ]


async def test_token_limit_is_read_under_both_names():
    async with client() as http:
        for body, n in (
            ({"max_tokens": 2}, 2),
            ({"max_completion_tokens": 3}, 3),
            ({"max_tokens": 9, "max_completion_tokens": 3}, 3),
        ):
            data = (await http.post(CHAT, json={"messages": user("A cat"), **body})).json()
            assert data["usage"]["completion_tokens"] == n
            assert data["choices"][0]["finish_reason"] == "length"
    assert [w.split()[0] for w in data["warnings"]] == ["max_tokens"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("web_search_options", {}),
    ],
)
async def test_unsupported_features_are_refused(field, value):
    async with client() as http:
        response = await http.post(CHAT, json={"messages": user("A cat"), field: value})
    assert error_of(response, 400)["param"] == field


async def test_harmless_values_of_refused_fields_pass():
    fields = {
        "tools": [],
        "tool_choice": "auto",
        "functions": [],
        "response_format": {"type": "text"},
        "n": 1,
        "store": None,
    }
    async with client() as http:
        response = await http.post(CHAT, json={"messages": user("A cat"), **fields})
    assert response.status_code == 200
    assert "warnings" not in response.json()
