"""GET /v1/requests, DELETE /v1/requests/{id}."""

from __future__ import annotations

import asyncio

import pytest

from support.api.http import CHAT, COMPLETIONS, client, error_of, events, user
from support.fakes.engine import FakeEngine
from support.waiting import until_async

pytestmark = pytest.mark.asyncio


async def listed(http, condition):
    collected = []

    async def satisfied():
        collected[:] = (await http.get("/v1/requests")).json()["data"]
        return condition(collected)

    await until_async(satisfied)
    return collected


async def test_running_requests_are_listed_and_can_be_cancelled():
    engine = FakeEngine(delay_s=0.02, eos=False)
    engine.reply = [11] * 1000
    async with client(engine) as http:
        assert (await http.get("/v1/requests")).json() == {"object": "list", "data": []}
        whole = asyncio.create_task(
            http.post(COMPLETIONS, json={"prompt": "Once", "n": 2}, headers={"x-request-id": "mine"})
        )
        await listed(http, lambda data: len(data) == 1)
        stream = asyncio.create_task(http.post(CHAT, json={"messages": user("x"), "stream": True}))
        data = await listed(http, lambda data: len(data) == 2 and all(row["n_generated"] > 2 for row in data))
        first, second = data
        assert first["request_id"] == "mine"
        assert first["model"] == "stories"
        assert first["state"] == "decode"
        assert first["n_prompt"] == 2
        assert first["age_ms"] > second["age_ms"] > 0
        assert not first["stream"]
        assert second["stream"]
        assert [choice["index"] for choice in first["choices"]] == [0, 1]

        assert error_of(await http.delete("/v1/requests/nothing"), 404)["code"] == "request_not_found"
        done = await http.delete(f"/v1/requests/{second['id']}")
        assert done.json() == {"id": second["id"], "object": "request", "cancelled": True}
        chunks = events((await stream).text)
        assert chunks[-1]["error"]["code"] == "request_cancelled"
        assert chunks[1]["choices"][0]["delta"]["content"]
        await listed(http, lambda data: [row["request_id"] for row in data] == ["mine"])

        assert (await http.delete("/v1/requests/mine")).status_code == 200
        response = await whole
        assert error_of(response, 499)["code"] == "request_cancelled"
        assert response.headers["x-should-retry"] == "false"
        await listed(http, lambda data: not data)
        assert engine.requests() == []


async def test_waiting_requests_are_listed_and_can_be_cancelled():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        asking = asyncio.create_task(http.post(COMPLETIONS, json={"prompt": "Once", "n": 12, "stream": True}))
        (row,) = await listed(http, lambda data: bool(data) and len(engine.seen) == 8)
        assert row["state"] == "queued"
        assert {choice["state"] for choice in row["choices"]} == {"queued"}
        await http.delete(f"/v1/requests/{row['id']}")
        assert error_of(await asking, 499)["code"] == "request_cancelled"
        await listed(http, lambda data: not data)
    assert len(engine.seen) == 8  # the other choices never began
