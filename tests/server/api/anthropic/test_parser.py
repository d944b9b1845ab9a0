"""A request's conversation and fields: what is taken, what is refused, what has no effect."""

from __future__ import annotations

import pytest

from support.api.anthropic import MESSAGES, PNG, TOOL, create, refusal, request, stream
from support.api.http import client, user
from support.api.named_events import SHOWING, messages_seen, template
from support.fakes.engine import TEXT, FakeEngine, make_app, tokenizer

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("messages", None, "messages"),
        ("messages", "x", "messages"),
        ("messages", [5], "messages[0]"),
        ("messages", [{"role": "tool", "content": "x"}], "messages[0].role"),
        ("messages", [{"role": "user"}], "messages[0].content"),
        ("messages", [{"role": "user", "content": [5]}], "messages[0].content[0]"),
        ("messages", [{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ("messages", [{"role": "user", "content": [PNG]}], "messages[0].content[0].type"),
        ("messages", [{"role": "user", "content": [{"type": "document"}]}], "messages[0].content[0].type"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}],
            "messages[0].content[0].tool_use_id",
        ),
        (
            "messages",
            [{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f"}]}],
            "messages[0].content[0].input",
        ),
        (
            "messages",
            [{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]}],
            "messages",
        ),
        ("max_tokens", -2, "max_tokens"),
        ("max_tokens", 0, "max_tokens"),
        ("system", [{"type": "image"}], "system[0].type"),
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}], "tools[0].type"),
        ("tools", [{"name": "f"}], "tools[0].input_schema"),
        ("tools", [{"name": "f", "input_schema": {"type": "string"}}], "tools[0].input_schema"),
        ("tools", [{**TOOL, "name": "a b"}], "tools[0].name"),
        ("tools", [TOOL, TOOL], "tools"),
        ("tool_choice", {"type": "some"}, "tool_choice.type"),
        ("tool_choice", {"type": "any"}, "tool_choice"),
        ("tool_choice", {"type": "tool"}, "tool_choice.name"),
        ("tool_choice", {"type": "tool", "name": "no"}, "tool_choice"),
        ("thinking", {"type": "enabled"}, "thinking.budget_tokens"),
        ("thinking", {"type": "enabled", "budget_tokens": 0}, "thinking.budget_tokens"),
        ("thinking", {"type": "deep"}, "thinking.type"),
        ("output_config", {"format": {"type": "xml"}}, "output_config.format.type"),
        ("output_config", {"format": {"type": "json_schema"}}, "output_config.format.schema"),
        ("output_config", {"effort": "some"}, "output_config.effort"),
        ("output_format", {"type": "xml"}, "output_format.type"),
        ("output_format", {"type": "json_schema", "schema": {"type": "frog"}}, "output_format.schema"),
        ("container", "x", "container"),
        ("mcp_servers", [{"url": "x"}], "mcp_servers"),
        ("stop_sequences", [5], "stop_sequences"),
        ("stop_token_ids", [100_000], "stop_token_ids"),
        ("temperature", "hot", "temperature"),
    ],
)
async def test_invalid_values_are_refused_by_name(field, value, param):
    engine = FakeEngine()
    async with client(engine) as http:
        type, message = refusal(await http.post(MESSAGES, json=request(**{field: value})), 400)
    assert type == "invalid_request_error"
    assert message.startswith(f"{param}: ")
    assert engine.seen == []


async def test_requested_threads_are_refused_so_that_clients_fall_back():
    engine = FakeEngine()
    async with client(engine) as http:
        response = await http.post(MESSAGES, json=request(thread={"type": "create"}))
        assert response.status_code == 400
        details = response.json()["error"]["details"]
        assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        assert engine.seen == []
        assert (await http.post(MESSAGES, json=request(thread=None))).status_code == 200


async def test_output_format_constrains_like_its_newer_name():
    engine, schema = FakeEngine(), {"type": "json_schema", "schema": {"type": "integer"}}
    async with client(engine) as http:
        for fields in (
            {"output_format": schema},
            {"output_config": {"format": schema}, "output_format": schema},
        ):
            assert (await http.post(MESSAGES, json=request(**fields))).status_code == 200
        first, second = (seen.constraint for seen in engine.seen)
        assert first == second
        assert first.kind == "json_schema"
        body = request(output_config={"format": schema}, output_format={**schema, "schema": {}})
        _, message = refusal(await http.post(MESSAGES, json=body), 400)
    assert message.startswith("output_format: ")


async def test_fields_without_effect_are_named():
    body = {"metadata": {"user_id": "me"}, "service_tier": "auto", "return_progress": True}
    body |= {"tools": [{**TOOL, "eager_input_streaming": True}], "tool_choice": {"type": "none"}}
    expected = ["metadata", "return_progress", "tools[0].eager_input_streaming"]
    whole = await create(None, **body)
    assert [text.split()[0] for text in whole["warnings"]] == expected
    delta = (await stream(None, **body))[-2]
    assert delta["warnings"] == whole["warnings"]


async def test_content_blocks_become_one_conversation(tmp_path):
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
    response = await create(
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
    assert [text.split()[0] for text in response["warnings"]] == ["messages[2].content[1]", "cache_control"]


async def test_trailing_assistant_message_is_continued():
    engine = FakeEngine()
    response = await create(engine, messages=[*user("A cat"), {"role": "assistant", "content": "Once upon"}])
    assert tokenizer().token_text(engine.seen[0].prompt[-1]) != "<|assistant|>"
    assert tokenizer().decode(engine.seen[0].prompt).endswith("Once upon")
    assert response["content"][0]["text"] == TEXT  # without what the client wrote


async def test_request_without_messages_is_answered():
    assert (await create(None, messages=[]))["content"][0]["text"] == TEXT


async def test_images_are_refused_with_llama_servers_message():
    results = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, PNG]}]
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    messages = [*user("x"), {"role": "assistant", "content": [use]}, {"role": "user", "content": results}]
    async with client() as http:
        _, message = refusal(await http.post(MESSAGES, json=request(messages=messages)), 400)
    assert "image input is not supported" in message
    assert message.startswith("messages[2].content[0].content[1].type: ")
