"""Content blocks of a request become one conversation."""

from __future__ import annotations

import pytest

from support.api.anthropic import MESSAGES, PNG, create, refusal, request
from support.api.http import client, user
from support.api.named_events import SHOWING, messages_seen, template
from support.fakes.engine import TEXT, FakeEngine, make_app, tokenizer

pytestmark = pytest.mark.asyncio


async def test_blocks_become_one_conversation(tmp_path):
    engine = FakeEngine()
    use = {"type": "tool_use", "id": "t1", "name": "find", "input": {"x": 1}}
    other = {**use, "id": "t2", "input": {}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "wait"},
                use,
                other,
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "here"},
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "none"}],
                    "is_error": True,
                },
            ],
        },
        {"role": "system", "content": "news"},
        {"role": "user", "content": [{"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}]},
    ]
    app = make_app(engine, chat_template=template(tmp_path, SHOWING))
    found = await create(
        app, max_tokens=20, messages=messages, system=[{"type": "text", "text": t} for t in ("be", "brief")]
    )
    seen = messages_seen(engine)
    roles = ["system", "user", "assistant", "tool", "tool", "user", "system", "user"]
    assert [message["role"] for message in seen] == roles
    assert [seen[i]["content"] for i in (0, 1, 5, 6, 7)] == ["be\nbrief", "a\nb", "here", "news", "c"]
    assert (seen[2]["reasoning_content"], seen[2]["content"]) == ("hm", "wait")
    assert [call["id"] for call in seen[2]["tool_calls"]] == ["t1", "t2"]
    assert [call["function"]["arguments"] for call in seen[2]["tool_calls"]] == [{"x": 1}, {}]
    assert [(m["tool_call_id"], m["content"]) for m in seen[3:5]] == [("t1", "one"), ("t2", "Error: none")]
    assert [text.split()[0] for text in found["warnings"]] == ["messages[2].content[1]", "cache_control"]


async def test_a_last_message_of_the_assistant_is_gone_on_with():
    engine = FakeEngine()
    found = await create(engine, messages=[*user("A cat"), {"role": "assistant", "content": "Once upon"}])
    assert tokenizer().token_text(engine.seen[0].prompt[-1]) != "<|assistant|>"
    assert tokenizer().decode(engine.seen[0].prompt).endswith("Once upon")
    assert found["content"][0]["text"] == TEXT  # without what the client wrote


async def test_no_messages_at_all_are_answered():
    assert (await create(None, messages=[]))["content"][0]["text"] == TEXT


async def test_images_are_refused_in_llama_servers_words():
    results = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, PNG]}]
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    messages = [*user("x"), {"role": "assistant", "content": [use]}, {"role": "user", "content": results}]
    async with client() as http:
        _, message = refusal(await http.post(MESSAGES, json=request(messages=messages)), 400)
    assert "image input is not supported" in message
    assert message.startswith("messages[2].content[0].content[1].type: ")
