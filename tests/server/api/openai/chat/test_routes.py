"""POST /v1/chat/completions: the whole response."""

from __future__ import annotations

import pytest

from support.api.http import CHAT, client, user
from support.fakes.engine import TEXT, FakeEngine, tokenizer

pytestmark = pytest.mark.asyncio


async def test_chat_without_stream_returns_one_object():
    engine = FakeEngine()
    async with client(engine) as http:
        response = await http.post(CHAT, json={"messages": user("A cat"), "model": "stories"})
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"]["prompt_tokens"] == len(engine.seen[0].prompt)
    expected = tokenizer().encode("<|user|>A cat<|end|><|assistant|>", parse_special=True)
    assert engine.seen[0].prompt == expected  # one beginning of text, not two
