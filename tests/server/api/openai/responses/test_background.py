"""Responses that are generated while no client waits."""

from __future__ import annotations

import asyncio

import pytest

from support.api.http import Live, client, error_of
from support.api.named_events import named_events
from support.fakes.engine import TEXT, FakeEngine, make_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
RESPONSES = "/v1/responses"


async def begin(http, **body):
    response = await http.post(RESPONSES, json={"input": "A cat", "background": True, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def ended(http, id):
    while (polled := (await http.get(f"{RESPONSES}/{id}")).json())["status"] in ("queued", "in_progress"):
        await asyncio.sleep(0.01)
    return polled


async def test_background_response_is_queued_then_completed():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        conversation = (await http.post("/v1/conversations", json={})).json()["id"]
        queued = await begin(http, conversation=conversation, frob=1)
        assert (queued["status"], queued["background"], queued["store"]) == ("queued", True, True)
        assert queued["warnings"] == ["frob has no effect"]
        assert (await http.get(f"{RESPONSES}/{queued['id']}")).json()["status"] == "queued"
        engine.gate.set()
        response = await ended(http, queued["id"])
        items = (await http.get(f"/v1/conversations/{conversation}/items")).json()["data"]
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == TEXT
    assert response["usage"]["output_tokens"] > 0
    assert [item["role"] for item in items] == ["assistant", "user"]


async def test_background_response_that_fails_is_stored_with_its_error():
    async with client(FakeEngine(fail_after=2)) as http:
        response = await ended(http, (await begin(http))["id"])
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert response["error"]["message"]
    [item] = response["output"]
    assert item["status"] == "incomplete"


@pytest.mark.parametrize("started", [False, True])
async def test_background_response_that_is_cancelled_frees_the_engine_and_stays_cancelled(started):
    engine = FakeEngine(delay_s=0.02)
    if not started:
        engine.gate.clear()
    async with client(engine) as http:
        reply = await begin(http)
        path = f"{RESPONSES}/{reply['id']}"
        if started:
            while not (await http.get(path)).json()["output"]:
                await asyncio.sleep(0.01)
        cancelled = (await http.post(f"{path}/cancel")).json()
        assert cancelled["status"] == "cancelled"
        assert [item["status"] for item in cancelled["output"]] == ["incomplete"] * started
        assert (await http.post(f"{path}/cancel")).json() == (await http.get(path)).json() == cancelled
        await until(lambda: not engine.requests())


async def test_background_response_that_is_deleted_ends_and_is_gone():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        path = f"{RESPONSES}/{(await begin(http))['id']}"
        await until(lambda: engine.seen)
        assert (await http.delete(path)).json()["deleted"] is True
        error_of(await http.get(path), 404)
        await until(lambda: not engine.requests())


async def test_background_response_of_another_key_is_not_found():
    engine = FakeEngine()
    engine.gate.clear()
    mine, theirs = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
    async with client(make_app(engine, api_key=["a", "b"])) as http:
        body = {"input": "A cat", "background": True}
        id = (await http.post(RESPONSES, json=body, headers=mine)).json()["id"]
        for response in (
            await http.get(f"{RESPONSES}/{id}", headers=theirs),
            await http.post(f"{RESPONSES}/{id}/cancel", headers=theirs),
            await http.delete(f"{RESPONSES}/{id}", headers=theirs),
        ):
            error_of(response, 404)
        assert (await http.get(f"{RESPONSES}/{id}", headers=mine)).json()["status"] == "queued"
        await http.post(f"{RESPONSES}/{id}/cancel", headers=mine)


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ({"store": False}, {}),
        ({}, {"max_stored_responses": 0}),
        ({}, {"responses_max_bytes": 100}),
    ],
)
async def test_background_response_without_storage_is_refused(body, settings):
    engine = FakeEngine()
    async with client(make_app(engine, **settings)) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", "background": True, **body})
    assert error_of(response, 400)["param"] == "background"
    assert engine.seen == []


async def test_background_response_too_large_to_store_fails_with_a_reason():
    async with client(make_app(FakeEngine(), responses_max_bytes=1500)) as http:
        response = await ended(http, (await begin(http, input="A cat " * 60))["id"])
    assert (response["status"], response["output"]) == ("failed", [])
    assert "too large to store" in response["error"]["message"]


async def test_background_when_the_queue_is_full_is_refused():
    engine = FakeEngine()
    engine.full = True
    async with client(engine) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", "background": True})
    assert error_of(response, 429)["code"]


async def resumed(http, id, after):
    """The events after one, of a response that ends."""
    response = await http.get(f"{RESPONSES}/{id}", params={"stream": True, "starting_after": after})
    assert response.headers["content-type"].startswith("text/event-stream")
    return named_events(response.text)


async def test_streamed_background_response_that_fails_ends_with_its_error():
    async with client(FakeEngine(fail_after=2)) as http:
        started = await http.post(RESPONSES, json={"input": "A cat", "background": True, "stream": True})
        events = named_events(started.text)
        *_, error, failed = events
        assert (error["type"], failed["type"]) == ("error", "response.failed")
        id = failed["response"]["id"]
        stored = (await http.get(f"{RESPONSES}/{id}")).json()
        assert (failed["response"]["status"], failed["response"]["store"]) == (stored["status"], True)
        assert await resumed(http, id, -1) == events
        assert await resumed(http, id, len(events) - 2) == [failed]
        assert await resumed(http, id, len(events)) == []


async def test_cancelled_streamed_background_response_tells_its_readers():
    engine = FakeEngine(delay_s=0.02)
    app = make_app(engine)
    async with client(app) as http:
        live = Live(app, RESPONSES, {"input": "A cat", "background": True, "stream": True})
        await live.until("output_text.delta")
        live.leave()
        await live.finish()
        assert engine.requests()  # it goes on without its client
        id = named_events(live.sent.decode())[0]["response"]["id"]
        cancelled = (await http.post(f"{RESPONSES}/{id}/cancel")).json()
        last = (await resumed(http, id, 3))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    assert cancelled["status"] == "cancelled"


async def test_streamed_background_response_without_room_for_events_is_stored_without():
    async with client(make_app(FakeEngine(), responses_max_bytes=6000)) as http:
        started = await http.post(RESPONSES, json={"input": "A cat", "background": True, "stream": True})
        id = named_events(started.text)[-1]["response"]["id"]
        assert (await http.get(f"{RESPONSES}/{id}")).json()["status"] == "completed"
        error = error_of(await http.get(f"{RESPONSES}/{id}", params={"stream": True}), 400)
    assert error["param"] == "stream"


async def test_background_responses_end_when_the_server_stops():
    engine = FakeEngine()
    engine.gate.clear()
    app = make_app(engine)
    async with app.router.lifespan_context(app), client(app) as http:
        await begin(http)
        await until(lambda: engine.seen)
        assert len(app.state.ggserve.background) == 1
    assert not app.state.ggserve.background
    assert engine.left == [engine.seen[0].id]
