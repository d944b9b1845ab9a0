"""Responses that belong to a conversation."""

from __future__ import annotations

import asyncio

import pytest

from support.api.http import client, error_of
from support.api.named_events import SHOWING, messages_seen, named_events, template
from support.fakes.engine import TEXT, FakeEngine, make_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
RESPONSES, CONVERSATIONS = "/v1/responses", "/v1/conversations"


async def begin(http, **body):
    return (await http.post(CONVERSATIONS, json=body)).json()["id"]


async def texts(http, id):
    listed = (await http.get(f"{CONVERSATIONS}/{id}/items", params={"order": "asc"})).json()["data"]
    return [item["content"][0]["text"] for item in listed]


@pytest.mark.parametrize("store", [True, False])
async def test_response_continues_from_a_conversations_items_and_adds_its_own(tmp_path, store):
    engine = FakeEngine()
    async with client(make_app(engine, chat_template=template(tmp_path, SHOWING))) as http:
        id = await begin(
            http, items=[{"role": "user", "content": "zero"}, {"role": "assistant", "content": "0"}]
        )
        body = {"conversation": id, "store": store}
        whole = (await http.post(RESPONSES, json={**body, "input": "one"})).json()
        streamed = await http.post(
            RESPONSES, json={"conversation": {"id": id}, "store": store, "input": "two", "stream": True}
        )
        events = named_events(streamed.text)
        counted = await http.post(f"{RESPONSES}/input_tokens", json={"conversation": id, "input": "three"})
        messages = [(message["role"], message["content"]) for message in messages_seen(engine)]
        texts_after = await texts(http, id)
    assert whole["conversation"] == events[-1]["response"]["conversation"] == {"id": id}
    answer = ("assistant", TEXT)
    assert messages == [("user", "zero"), ("assistant", "0"), ("user", "one"), answer, ("user", "two")]
    assert texts_after == ["zero", "0", "one", TEXT, "two", TEXT]
    assert counted.json()["input_tokens"] > whole["usage"]["input_tokens"]


async def test_failed_response_adds_nothing_to_the_conversation():
    engine = FakeEngine(fail_after=2)
    async with client(engine) as http:
        id = await begin(http)
        assert (await http.post(RESPONSES, json={"conversation": id, "input": "one"})).status_code == 500
        assert await texts(http, id) == []


async def test_conversation_unknown_or_alongside_a_previous_response_is_refused():
    engine = FakeEngine()
    async with client(engine) as http:
        unknown = error_of(await http.post(RESPONSES, json={"input": "A", "conversation": "conv_x"}), 404)
        id = await begin(http)
        first = (await http.post(RESPONSES, json={"input": "A", "conversation": id})).json()
        both = {"input": "B", "conversation": id, "previous_response_id": first["id"]}
        refused = error_of(await http.post(RESPONSES, json=both), 400)
        again = {"conversation": id, "input": [{**first["output"][0]}]}
        known = error_of(await http.post(RESPONSES, json=again), 400)
    assert (unknown["param"], unknown["code"]) == ("conversation", "conversation_not_found")
    assert refused["param"] == "conversation"
    assert known["param"] == "input"
    assert first["output"][0]["id"] in known["message"]
    assert len(engine.seen) == 1


async def test_conversation_of_another_key_is_not_found():
    mine, theirs = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
    async with client(make_app(FakeEngine(), api_key=["a", "b"])) as http:
        conversation = await http.post(CONVERSATIONS, json={}, headers=mine)
        id = conversation.json()["id"]
        body = {"input": "A", "conversation": id}
        error_of(await http.post(RESPONSES, json=body, headers=theirs), 404)
        error_of(await http.get(f"{CONVERSATIONS}/{id}", headers=theirs), 404)
        error_of(await http.delete(f"{CONVERSATIONS}/{id}", headers=theirs), 404)
        assert (await http.post(RESPONSES, json=body, headers=mine)).status_code == 200
        assert (await http.post(CONVERSATIONS, json={})).status_code == 401


async def test_conversation_deleted_while_a_response_runs_gets_a_warning():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        id = await begin(http)
        running = asyncio.create_task(http.post(RESPONSES, json={"input": "A", "conversation": id}))
        await until(lambda: engine.seen)
        await http.delete(f"{CONVERSATIONS}/{id}")
        engine.gate.set()
        response = (await running).json()
        error_of(await http.get(f"{CONVERSATIONS}/{id}"), 404)
    assert response["status"] == "completed"
    assert any(text.startswith("conversation has no effect") for text in response["warnings"])


async def test_response_too_large_for_the_conversation_gets_a_warning():
    async with client(make_app(FakeEngine(), responses_max_bytes=300)) as http:
        id = await begin(http)
        body = {"input": "A" * 200, "conversation": id, "store": False}
        response = (await http.post(RESPONSES, json=body)).json()
        assert await texts(http, id) == []
    assert any(text.startswith("conversation has no effect") for text in response["warnings"])
