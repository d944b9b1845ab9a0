"""Fields of a request: what is refused, what has no effect; items become one conversation."""

from __future__ import annotations

import pytest

from support.api.http import client, error_of
from support.api.named_events import SHOWING, messages_seen, template
from support.api.responses import RESPONSES, TOOL, create
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", None, "input"),
        ("input", [], "input"),
        ("input", 5, "input"),
        ("input", ["x"], "input[0]"),
        ("input", [{"role": "tool", "content": "x"}], "input[0].role"),
        ("input", [{"role": "user"}], "input[0].content"),
        ("input", [{"type": "mcp_call"}], "input"),
        ("input", [{"type": "frog"}], "input[0].type"),
        ("input", [{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content[0].type"),
        ("input", [{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ("input", [{"type": "function_call_output", "call_id": "x", "output": "y"}], "input[0].call_id"),
        ("input", [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}], "input"),
        ("input", [{"type": "function_call", "call_id": "x", "name": "f"}], "input[0].arguments"),
        ("input", [{"type": "item_reference", "id": "msg_x"}], "input[0].id"),
        ("input", [{"type": "reasoning", "encrypted_content": 5}], "input[0].encrypted_content"),
        ("input", [{"role": "user", "content": "x"}] * 5000, "input"),
        ("background", 1, "background"),
        ("truncation", "auto", "truncation"),
        ("conversation", 5, "conversation"),
        ("conversation", "", "conversation"),
        ("conversation", "c" * 257, "conversation"),
        ("conversation", {"name": "conv_1"}, "conversation"),
        ("prompt", {"id": "pmpt_1"}, "prompt"),
        ("tools", [{**TOOL, "name": "a b"}], "tools[0].name"),
        ("tools", [TOOL, TOOL], "tools"),
        ("tool_choice", "maybe", "tool_choice"),
        ("tool_choice", "required", "tool_choice"),
        ("tool_choice", {"type": "web_search"}, "tool_choice.type"),
        ("tool_choice", {"type": "function", "name": "no"}, "tool_choice"),
        ("text", {"format": {"type": "xml"}}, "text.format.type"),
        ("text", {"format": {"type": "json_schema"}}, "text.format.schema"),
        ("metadata", {"a": 1}, "metadata"),
        ("metadata", {str(i): "x" for i in range(17)}, "metadata"),
        ("include", ["everything"], "include[0]"),
        ("max_output_tokens", 0, "max_output_tokens"),
        ("reasoning", {"effort": "some"}, "reasoning.effort"),
    ],
)
async def test_invalid_values_are_refused_by_name(field, value, param):
    engine = FakeEngine()
    async with client(engine) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", field: value})
    error = error_of(response, 400)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert engine.seen == []


async def test_fields_without_effect_are_named():
    fields = {
        "user": "me",
        "text": {"verbosity": "low"},
        "reasoning": {"summary": "auto"},
        "include": ["file_search_call.results"],
        "stream_options": {"include_obfuscation": False},
        "max_tokens": 5,
    }
    items = [{"role": "user", "content": "A cat", "mood": "good"}]
    names = [text.split()[0] for text in (await create(None, input=items, **fields))["warnings"]]
    assert sorted(names) == [
        "include:",
        "input[0].mood",
        "max_tokens",
        "reasoning.summary",
        "stream_options",
        "text.verbosity",
        "user",
    ]


async def test_limit_that_does_not_fit_is_named_as_the_api_names_it():
    response = await create(None, max_output_tokens=100_000)
    assert any(text.startswith("max_output_tokens: only") for text in response["warnings"])


async def test_input_items_become_one_conversation(tmp_path):
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


async def test_only_an_unfinished_message_is_continued():
    for status, continued in (("incomplete", True), ("completed", False)):
        engine = FakeEngine()
        last = {"type": "message", "role": "assistant", "status": status, "content": "Once"}
        await create(engine, input=[{"role": "user", "content": "A cat"}, last])
        end = engine.tokenizer.token_text(engine.seen[0].prompt[-1])
        assert (end != "<|assistant|>") is continued
