"""Messages and their events: blocks, stop reasons, usage."""

from __future__ import annotations

import json

import pytest

from support.api.anthropic import CALL, TOOL, create, stream
from support.api.named_events import THINKING, template
from support.fakes.engine import TEXT, FakeEngine, ids, make_app

pytestmark = pytest.mark.asyncio


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


async def test_whole_message_has_every_field():
    engine = FakeEngine(cached_n=2)
    response = await create(engine)
    usage = response.pop("usage")
    assert response.pop("id").startswith("msg_")
    assert response == {
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


async def test_stream_adds_up_to_the_whole_message():
    events = await stream(FakeEngine(cached_n=2))
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 2
    assert events[-1] == {"type": "message_stop"}
    assert without_marks(put_together(events)) == without_marks(await create(FakeEngine(cached_n=2)))


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_thinking_and_tool_use_are_blocks(tmp_path, display):
    def app():
        engine = FakeEngine("<think>well</think>" + CALL)
        return make_app(engine, chat_template=template(tmp_path, THINKING))

    body = {"tools": [TOOL], "thinking": {"type": "adaptive", "display": display}}
    whole = await create(app(), **body)
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
    assert without_marks(put_together(await stream(app(), **body))) == without_marks(whole)


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
async def test_stop_reason_says_why_generation_ended(body, reason, word):
    def engine():
        return FakeEngine(prefill_s=0.05 if "timeout_ms" in body else 0.0)

    whole = await create(engine(), **body)
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, word)
    delta = (await stream(engine(), **body))[-2]["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": word}


async def test_full_context_is_reported_as_its_stop_reason():
    class Full(FakeEngine):
        def script(self, request):
            room = self.n_ctx - len(request.prompt)
            return self.reply[:room]

    response = await create(Full(n_ctx=16), max_tokens=100)
    assert response["stop_reason"] == "model_context_window_exceeded"
    assert response["warnings"][0].startswith("max_tokens: only")


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


async def test_arguments_that_are_not_an_object_get_a_warning():
    engine = FakeEngine(CALL[: CALL.index("1}")], eos=False)
    response = await create(engine, tools=[TOOL], max_tokens=len(ids(CALL[: CALL.index("1}")])))
    assert response["stop_reason"] == "max_tokens"
    assert response["content"][0]["input"] == {}
    assert response["warnings"][-1].startswith("content[0].input")


async def test_return_tokens_adds_the_token_ids():
    whole = await create(None, return_tokens=True)
    assert whole["tokens"] == FakeEngine().reply
    assert (await stream(None, return_tokens=True))[-2]["tokens"] == whole["tokens"]


async def test_keep_alives_are_ping_events():
    app = make_app(FakeEngine(prefill_s=0.2), keep_alive_s=0.05)
    events = await stream(app)
    assert events[0] == {"type": "ping"}
    actual = put_together([event for event in events if event["type"] != "ping"])
    assert actual["content"][0]["text"] == TEXT
