"""POST /v1/messages and its count of tokens: what goes in, what comes out, streamed and whole."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.api.http import Live, client, user
from support.api.named_events import SHOWING, THINKING, messages_seen, named_events, template
from support.api.routes import refusal as checked_refusal
from support.fakes.engine import TEXT, FakeEngine, ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
TOOL = {"name": "find", "input_schema": {"type": "object", "properties": {}}}
CALL = '{"tool_calls": [{"name": "find", "arguments": {"a": 1}}, {"name": "find", "arguments": {}}]}'
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def request(**body):
    return {"messages": user("A cat"), "max_tokens": 200, **body}


async def create(app, **body):
    async with client(app) as http:
        response = await http.post(MESSAGES, json=request(**body))
    assert response.status_code == 200, response.text
    return response.json()


async def stream(app, **body):
    async with client(app) as http:
        response = await http.post(MESSAGES, json=request(stream=True, **body))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return named_events(response.text)


def refusal(response, status):
    """The type and message of an error, whose shape is checked."""
    error = checked_refusal(response, MESSAGES, status)
    return error["type"], error["message"]


def put_together(events):
    """The message that a client makes of a stream; blocks must come one by one."""
    start, *events = events
    assert start["type"] == "message_start"
    message = start["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    blocks, arguments, open = message["content"], {}, None
    for event in events:
        if event["type"] == "content_block_start":
            assert open is None
            open = event["index"]
            assert open == len(blocks)
            blocks.append(event["content_block"])
        elif event["type"] == "content_block_delta":
            assert event["index"] == open
            kind, value = event["delta"].values()
            if kind == "input_json_delta":
                arguments[open] = arguments.get(open, "") + value
            elif kind == "signature_delta":
                blocks[open]["signature"] = value
            else:
                blocks[open][kind.removesuffix("_delta")] += value
        elif event["type"] == "content_block_stop":
            assert event["index"] == open
            open = None
        elif event["type"] == "message_delta":
            assert open is None
            message |= event["delta"] | {name: event[name] for name in ("warnings",) if name in event}
            message["usage"] |= event["usage"]
    for index, text in arguments.items():
        blocks[index]["input"] = json.loads(text)
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    return message


def without_marks(message):
    """What does not differ from one message to the next."""
    content = [{**block, "id": ""} for block in message["content"]]
    return {**message, "id": "", "content": content, "usage": {**message["usage"], "timings": None}}


async def test_a_whole_message():
    engine = FakeEngine(cached_n=2)
    found = await create(engine)
    usage = found.pop("usage")
    assert found.pop("id").startswith("msg_")
    assert found == {
        "type": "message",
        "role": "assistant",
        "model": "stories",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert usage["input_tokens"] == len(engine.seen[0].prompt) - 2
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (2, 0)
    assert usage["output_tokens"] == usage["timings"]["predicted_n"] == len(engine.reply) + 1


async def test_a_stream_makes_the_same_message():
    events = await stream(FakeEngine(cached_n=2))
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 2
    assert events[-1] == {"type": "message_stop"}
    assert without_marks(put_together(events)) == without_marks(await create(FakeEngine(cached_n=2)))


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_thinking_and_the_use_of_tools_are_blocks(tmp_path, display):
    def app():
        engine = FakeEngine("<think>well</think>" + CALL)
        return make_app(engine, chat_template=template(tmp_path, THINKING))

    asked = {"tools": [TOOL], "thinking": {"type": "adaptive", "display": display}}
    whole = await create(app(), **asked)
    thinking, *uses = whole["content"]
    assert thinking["thinking"] == ("well" if display == "summarized" else "")
    assert thinking["signature"]
    assert [(use["type"], use["name"], use["input"]) for use in uses] == [
        ("tool_use", "find", {"a": 1}),
        ("tool_use", "find", {}),
    ]
    assert len({use["id"] for use in uses}) == 2
    assert all(use["id"].startswith("toolu_") for use in uses)
    assert whole["stop_reason"] == "tool_use"
    details = whole["usage"]["output_tokens_details"]
    assert 0 < details["thinking_tokens"] < whole["usage"]["output_tokens"]
    assert without_marks(put_together(await stream(app(), **asked))) == without_marks(whole)


@pytest.mark.parametrize(
    ("body", "reason", "word"),
    [
        ({}, "end_turn", None),
        ({"max_tokens": 3}, "max_tokens", None),
        ({"stop_sequences": ["garden", "cat"]}, "stop_sequence", "cat"),
        ({"stop": "little"}, "stop_sequence", "little"),
        ({"timeout_ms": 1}, "max_tokens", None),
    ],
)
async def test_why_it_stops(body, reason, word):
    def engine():
        return FakeEngine(prefill_s=0.05 if "timeout_ms" in body else 0.0)

    whole = await create(engine(), **body)
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, word)
    delta = (await stream(engine(), **body))[-2]["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": word}


async def test_it_stops_when_the_context_is_full():
    class Full(FakeEngine):
        def script(self, request):
            room = self.n_ctx - len(request.prompt)
            return self.reply[:room]

    found = await create(Full(n_ctx=16), max_tokens=100)
    assert found["stop_reason"] == "model_context_window_exceeded"
    assert found["warnings"][0].startswith("max_tokens: only")


async def test_an_empty_answer_is_an_empty_block():
    assert (await create(FakeEngine([])))["content"] == [{"type": "text", "text": ""}]
    kinds = [event["type"] for event in await stream(FakeEngine([]))]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


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
async def test_what_cannot_be_is_refused_by_name(field, value, param):
    engine = FakeEngine()
    async with client(engine) as http:
        type, message = refusal(await http.post(MESSAGES, json=request(**{field: value})), 400)
    assert type == "invalid_request_error"
    assert message.startswith(f"{param}: ")
    assert engine.seen == []


async def test_threads_when_requested_are_refused_so_that_clients_fall_back():
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


async def test_images_are_refused_in_llama_servers_words():
    results = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, PNG]}]
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    messages = [*user("x"), {"role": "assistant", "content": [use]}, {"role": "user", "content": results}]
    async with client() as http:
        _, message = refusal(await http.post(MESSAGES, json=request(messages=messages)), 400)
    assert "image input is not supported" in message
    assert message.startswith("messages[2].content[0].content[1].type: ")


async def test_fields_without_effect_are_named():
    body = {"metadata": {"user_id": "me"}, "service_tier": "auto", "return_progress": True}
    body |= {"tools": [{**TOOL, "eager_input_streaming": True}], "tool_choice": {"type": "none"}}
    expected = ["metadata", "return_progress", "tools[0].eager_input_streaming"]
    whole = await create(None, **body)
    assert [text.split()[0] for text in whole["warnings"]] == expected
    delta = (await stream(None, **body))[-2]
    assert delta["warnings"] == whole["warnings"]


async def test_arguments_that_are_no_object_are_reported():
    engine = FakeEngine(CALL[: CALL.index("1}")], eos=False)
    found = await create(engine, tools=[TOOL], max_tokens=len(ids(CALL[: CALL.index("1}")])))
    assert found["stop_reason"] == "max_tokens"
    assert found["content"][0]["input"] == {}
    assert found["warnings"][-1].startswith("content[0].input")


async def test_counted_tokens_are_those_of_the_prompt():
    engine = FakeEngine()
    body = {"messages": user("A cat"), "system": "Be brief", "tools": [TOOL]}
    async with client(engine) as http:
        await http.post(MESSAGES, json={**body, "max_tokens": 5})
        counted = (await http.post(COUNT, json=body)).json()
        refusal(await http.post(COUNT, json={"messages": [5]}), 400)
    assert counted["input_tokens"] == len(engine.seen[0].prompt)
    assert len(engine.seen) == 1


async def test_token_ids():
    whole = await create(None, return_tokens=True)
    assert whole["tokens"] == FakeEngine().reply
    assert (await stream(None, return_tokens=True))[-2]["tokens"] == whole["tokens"]


async def test_signs_of_life_are_pings():
    app = make_app(FakeEngine(prefill_s=0.2), keep_alive_s=0.05)
    events = await stream(app)
    assert events[0] == {"type": "ping"}
    found = put_together([event for event in events if event["type"] != "ping"])
    assert found["content"][0]["text"] == TEXT


async def test_a_client_that_leaves():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 1000
    live = Live(make_app(engine), MESSAGES, request(stream=True, max_tokens=500))
    await live.until("content_block_delta")
    live.leave()
    await asyncio.wait_for(live.task, 5)
    assert engine.left == [engine.seen[0].id]
