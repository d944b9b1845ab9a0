"""`context_management` of /v1/messages: what is applied, what only warned of, and what the response says."""

from __future__ import annotations

import threading

import pytest

from support.api.http import client, user
from support.api.named_events import SHOWING, messages_seen, named_events, template
from support.api.routes import refusal
from support.fakes.engine import FakeEngine, ids, make_app

pytestmark = pytest.mark.asyncio
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
CLEAR = "clear_thinking_20251015"


def thought(text):
    return {"role": "assistant", "content": [{"type": "thinking", "thinking": text}, *text_block("so")]}


def text_block(text):
    return [{"type": "text", "text": text}]


def body(*edits, **fields):
    turns = [*user("a"), thought("one two"), *user("b"), thought("three"), *user("c"), thought("four")]
    return {
        "messages": [*turns, *user("d")],
        "max_tokens": 9,
        "context_management": {"edits": edits},
        **fields,
    }


async def thoughts(tmp_path, *edits, **fields):
    """The thinking that reaches the template, and the response."""
    engine = FakeEngine(n_ctx=4096)
    async with client(make_app(engine, chat_template=template(tmp_path, SHOWING))) as http:
        response = await http.post(MESSAGES, json=body(*edits, **fields))
    assert response.status_code == 200, response.text
    actual = [
        message["reasoning_content"] for message in messages_seen(engine) if "reasoning_content" in message
    ]
    return actual, response


@pytest.mark.parametrize("keep", ["all", {"type": "all"}, {"type": "thinking_turns", "value": 3}])
async def test_clear_thinking_when_everything_is_kept_changes_nothing(tmp_path, keep):
    actual, response = await thoughts(tmp_path, {"type": CLEAR, "keep": keep})
    assert actual == ["one two", "three", "four"]
    assert response.json()["context_management"] == {"applied_edits": []}
    assert not [text for text in response.json().get("warnings", ()) if "context_management" in text]


@pytest.mark.parametrize(
    ("keep", "left"),
    [(None, ["four"]), ({"type": "thinking_turns", "value": 2}, ["three", "four"])],
)
async def test_clear_thinking_drops_and_counts_thinking_of_older_turns(tmp_path, keep, left):
    actual, response = await thoughts(tmp_path, {"type": CLEAR, "keep": keep})
    assert actual == left
    cleared = ["one two", "three"][: 3 - len(left)]
    tokens = sum(len(ids(text)) for text in cleared)
    edit = {"type": CLEAR, "cleared_thinking_turns": len(cleared), "cleared_input_tokens": tokens}
    assert response.json()["context_management"] == {"applied_edits": [edit]}


async def test_stream_reports_applied_edits_at_its_end(tmp_path):
    _, response = await thoughts(tmp_path, {"type": CLEAR}, stream=True)
    delta = named_events(response.text)[-2]
    assert [edit["cleared_thinking_turns"] for edit in delta["context_management"]["applied_edits"]] == [2]


@pytest.mark.parametrize("kind", ["clear_tool_uses_20250919", "compact_20260112"])
async def test_other_edits_get_a_warning_and_change_nothing(tmp_path, kind):
    actual, response = await thoughts(
        tmp_path, {"type": kind, "trigger": {"type": "input_tokens", "value": 1}}
    )
    assert len(actual) == 3
    assert response.json()["context_management"] == {"applied_edits": []}
    [warning] = [text for text in response.json()["warnings"] if kind in text]
    assert warning.startswith("context_management.edits[0] has no effect")


async def test_response_without_requested_edits_has_no_edits_field(tmp_path):
    _, response = await thoughts(tmp_path, context_management=None)
    assert "context_management" not in response.json()


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("management", "param"),
    [
        ([], "context_management"),
        ({"edits": {}}, "context_management.edits"),
        ({"edits": [{}]}, "context_management.edits[0].type"),
        ({"edits": [{"type": "forget"}]}, "context_management.edits[0].type"),
        ({"edits": [{"type": CLEAR, "keep": 2}]}, "context_management.edits[0].keep"),
        ({"edits": [{"type": CLEAR, "keep": {"type": "x"}}]}, "context_management.edits[0].keep.type"),
        (
            {"edits": [{"type": CLEAR, "keep": {"type": "thinking_turns", "value": 0}}]},
            "context_management.edits[0].keep.value",
        ),
    ],
)
async def test_malformed_edits_are_refused_by_name(path, management, param):
    fields = {"max_tokens": 9} if path == MESSAGES else {}
    async with client() as http:
        response = await http.post(
            path, json={"messages": user("a"), "context_management": management, **fields}
        )
    assert refusal(response, path)["message"].startswith(f"{param}: ")


async def test_counted_tokens_are_those_after_the_edits(tmp_path):
    app = make_app(FakeEngine(n_ctx=4096), chat_template=template(tmp_path, SHOWING))
    counts = []
    async with client(app) as http:
        for keep in ("all", None):
            edited = body({"type": CLEAR, "keep": keep})
            del edited["max_tokens"]
            counts.append((await http.post(COUNT, json=edited)).json()["input_tokens"])
    assert counts[0] > counts[1]


@pytest.mark.parametrize("route", [MESSAGES, COUNT])
async def test_more_edits_than_the_limit_are_refused(route):
    fields = body(*[{"type": CLEAR}] * 33)
    if route == COUNT:
        del fields["max_tokens"]
    async with client(make_app(FakeEngine(n_ctx=4096))) as http:
        response = await http.post(route, json=fields)
    assert response.status_code == 400
    message = "context_management.edits: may hold at most 32 edits, not 33"
    assert message in response.json()["error"]["message"]


async def test_clear_thinking_counts_tokens_outside_the_event_loop(tmp_path, monkeypatch):
    threads = []
    engine = FakeEngine(n_ctx=4096)
    encode = type(engine.tokenizer).encode

    def recorded(self, text, *args, **kwargs):
        if text == "one two":
            threads.append(threading.current_thread())
        return encode(self, text, *args, **kwargs)

    monkeypatch.setattr(type(engine.tokenizer), "encode", recorded)
    async with client(make_app(engine, chat_template=template(tmp_path, SHOWING))) as http:
        response = await http.post(MESSAGES, json=body({"type": CLEAR}))
    assert response.status_code == 200, response.text
    assert threads
    assert threading.main_thread() not in threads
