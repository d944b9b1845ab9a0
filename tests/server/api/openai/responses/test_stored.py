"""Responses that clients refer to: previous_response_id, GET, DELETE, input_items, references, cancel."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.api.openai.responses.store import ResponseStore
from support.api.http import Live, client, error_of
from support.api.named_events import SHOWING, messages_seen, named_events, template
from support.fakes.engine import TEXT, FakeEngine, make_app, tokenizer
from support.waiting import until

pytestmark = pytest.mark.asyncio
RESPONSES = "/v1/responses"


async def create(http, input="A cat", **body):
    response = await http.post(RESPONSES, json={"input": input, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_previous_response_id_continues_the_conversation(tmp_path):
    engine = FakeEngine()
    async with client(make_app(engine, chat_template=template(tmp_path, SHOWING))) as http:
        first = await create(http, "one", instructions="only now")
        second = await create(http, "two", previous_response_id=first["id"])
        events = named_events(
            (
                await http.post(
                    RESPONSES, json={"input": "three", "stream": True, "previous_response_id": second["id"]}
                )
            ).text
        )
        third = events[-1]["response"]
        stored = (await http.get(f"{RESPONSES}/{third['id']}")).json()
    messages = [(message["role"], message["content"]) for message in messages_seen(engine)]
    answer = ("assistant", TEXT)
    assert messages == [("user", "one"), answer, ("user", "two"), answer, ("user", "three")]
    assert stored == third
    assert third["previous_response_id"] == second["id"]
    assert second["store"] is True


async def test_incomplete_response_is_continued():
    engine = FakeEngine()
    async with client(engine) as http:
        first = await create(http, max_output_tokens=3)
        await create(http, None, previous_response_id=first["id"])
    reported = first["output"][0]["content"][0]["text"]
    assert tokenizer().decode(engine.seen[-1].prompt) == "A cat" + reported
    assert tokenizer().token_text(engine.seen[-1].prompt[-1]) != "<|assistant|>"


async def test_stored_response_is_retrieved_and_deleted():
    async with client() as http:
        reply = await create(http)
        path = f"{RESPONSES}/{reply['id']}"
        assert (await http.get(path)).json() == reply
        assert error_of(await http.get(path, params={"stream": "true"}), 400)["param"] == "stream"
        deleted = (await http.delete(path)).json()
        assert deleted == {"id": reply["id"], "object": "response.deleted", "deleted": True}
        for response in (
            await http.get(path),
            await http.delete(path),
            await http.get(f"{path}/input_items"),
            await http.post(f"{path}/cancel"),
        ):
            assert error_of(response, 404)["code"] == "response_not_found"
        for body in ({"previous_response_id": reply["id"]}, {"previous_response_id": "resp_nothing"}):
            for route in (RESPONSES, f"{RESPONSES}/input_tokens"):
                error = error_of(await http.post(route, json={"input": "x", **body}), 404)
                assert (error["param"], error["code"]) == ("previous_response_id", "response_not_found")


async def test_response_not_to_be_stored_is_not_found():
    async with client() as http:
        reply = await create(http, store=False)
        assert reply["store"] is False
        error_of(await http.get(f"{RESPONSES}/{reply['id']}"), 404)
    async with client(make_app(max_stored_responses=0)) as http:
        reply = await create(http)
        assert reply["store"] is False
        assert "warnings" not in reply
        assert (await create(http, store=True))["warnings"][0].startswith("store has no effect")
        error_of(await http.get(f"{RESPONSES}/{reply['id']}"), 404)
    async with client(make_app(responses_max_bytes=100)) as http:
        reply = await create(http)
        assert (reply["store"], reply["warnings"]) == (
            False,
            ["store has no effect: the response is too large to store"],
        )
        error_of(await http.get(f"{RESPONSES}/{reply['id']}"), 404)


async def test_failures_are_not_stored():
    async with client(FakeEngine(fail_after=2)) as http:
        events = named_events((await http.post(RESPONSES, json={"input": "x", "stream": True})).text)
        error_of(await http.get(f"{RESPONSES}/{events[-1]['response']['id']}"), 404)


async def test_response_is_visible_only_to_the_key_that_created_it():
    one, two = {"authorization": "Bearer one"}, {"x-api-key": "two"}
    async with client(make_app(api_key=["one", "two"])) as http:
        reply = (await http.post(RESPONSES, json={"input": "x"}, headers=one)).json()
        path = f"{RESPONSES}/{reply['id']}"
        assert (await http.get(path, headers={"x-api-key": "one"})).status_code == 200
        error_of(await http.get(path, headers=two), 404)
        error_of(await http.delete(path, headers=two), 404)
        after = {"input": "x", "previous_response_id": reply["id"]}
        error_of(await http.post(RESPONSES, json=after, headers=two), 404)
        reference = {"input": [{"type": "item_reference", "id": reply["output"][0]["id"]}]}
        error_of(await http.post(RESPONSES, json=reference, headers=two), 400)
        assert (await http.post(RESPONSES, json=after, headers=one)).status_code == 200


async def test_input_items_are_listed_in_pages():
    async with client() as http:
        first = await create(http, [{"role": "user", "content": text, "id": f"msg_{text}"} for text in "abc"])
        second = await create(http, "d", previous_response_id=first["id"])
        path = f"{RESPONSES}/{second['id']}/input_items"

        async def page(**params):
            return (await http.get(path, params=params)).json()

        whole = await page(order="asc")
        ids = [item["id"] for item in whole["data"]]
        assert ids[:3] == ["msg_a", "msg_b", "msg_c"]
        assert ids[3] == first["output"][0]["id"]
        assert whole["data"][4]["content"] == [{"type": "input_text", "text": "d"}]
        assert (whole["first_id"], whole["last_id"], whole["has_more"]) == (ids[0], ids[4], False)
        assert [item["id"] for item in (await page())["data"]] == ids[::-1]
        part = await page(limit=2, after=ids[3])
        assert [item["id"] for item in part["data"]] == ["msg_c", "msg_b"]
        assert part["has_more"]
        for params in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_x"}):
            assert error_of(await http.get(path, params=params), 400)["param"] == next(iter(params))


async def test_item_references_are_resolved(tmp_path):
    engine = FakeEngine()
    async with client(make_app(engine, chat_template=template(tmp_path, SHOWING))) as http:
        reply = await create(http, "one")
        reference = {"type": "item_reference", "id": reply["output"][0]["id"]}
        await create(
            http, [{"role": "user", "content": "two"}, reference, {"role": "user", "content": "three"}]
        )
    messages = [message["content"] for message in messages_seen(engine)]
    assert messages == ["two", TEXT, "three"]


async def test_running_response_can_be_retrieved_and_cancelled():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 1000
    app = make_app(engine)
    async with client(app) as http:
        live = Live(app, RESPONSES, {"input": "x", "stream": True})
        await live.until("output_text.delta")
        id = engine.seen[0].id
        seen = (await http.get(f"{RESPONSES}/{id}")).json()
        assert (seen["id"], seen["status"]) == (id, "in_progress")
        assert seen["output"][0]["status"] == "in_progress"
        cancelled = (await http.post(f"{RESPONSES}/{id}/cancel")).json()
        assert (cancelled["id"], cancelled["status"]) == (id, "cancelled")
        events = named_events(await live.finish())
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2]["code"] == "request_cancelled"
        assert events[-1]["response"]["status"] == "cancelled"
        error_of(await http.get(f"{RESPONSES}/{id}"), 404)

        whole = asyncio.create_task(http.post(RESPONSES, json={"input": "x"}))
        await until(lambda: len(engine.seen) == 2)
        await http.post(f"{RESPONSES}/{engine.seen[1].id}/cancel")
        assert error_of(await whole, 499)["code"] == "request_cancelled"


async def test_a_completed_response_cannot_be_cancelled():
    async with client() as http:
        reply = await create(http)
        error = error_of(await http.post(f"{RESPONSES}/{reply['id']}/cancel"), 400)
    assert error["code"] == "response_not_running"


@pytest.mark.parametrize("n", [1, 300])
async def test_responses_of_any_length_are_stored_in_the_event_loop(n, monkeypatch):
    threads = set()

    def put(self, *arguments):
        threads.add(threading.get_ident())

    monkeypatch.setattr(ResponseStore, "put", put)
    engine = FakeEngine([5] * n, n_ctx=1024)
    async with client(engine) as http:
        reply = await create(http, return_tokens=True)
    assert len(reply["tokens"]) == n
    assert threads == {threading.get_ident()}
