"""Items of the input become one conversation."""

from __future__ import annotations

import pytest

from support.api.named_events import SHOWING, messages_seen, template
from support.api.responses import create
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


async def test_items_become_one_conversation(tmp_path):
    engine = FakeEngine()
    items = [
        {"role": "developer", "content": "rules"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
        {"role": "user", "content": [{"type": "input_text", "text": t} for t in "bc"]},
    ]
    await create(
        make_app(engine, chat_template=template(tmp_path, SHOWING)), input=items, instructions="first"
    )
    seen = messages_seen(engine)
    assert [message["role"] for message in seen] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert seen[0]["content"] == "first\n\nrules"
    assert (seen[2]["reasoning_content"], seen[2]["content"]) == ("hm", "wait")
    calls = [(call["id"], call["function"]) for call in seen[2]["tool_calls"]]
    assert calls == [
        ("c1", {"name": "find", "arguments": {"x": 1}}),
        ("c2", {"name": "find", "arguments": {}}),
    ]
    assert [(m["tool_call_id"], m["content"]) for m in seen[3:5]] == [("c1", "one"), ("c2", "two")]
    assert seen[5]["content"] == "b\nc"


async def test_only_an_unfinished_message_is_gone_on_with():
    for status, continued in (("incomplete", True), ("completed", False)):
        engine = FakeEngine()
        last = {"type": "message", "role": "assistant", "status": status, "content": "Once"}
        await create(engine, input=[{"role": "user", "content": "A cat"}, last])
        end = engine.tokenizer.token_text(engine.seen[0].prompt[-1])
        assert (end != "<|assistant|>") is continued
