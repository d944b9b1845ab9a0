"""Loading and unloading by name."""

from __future__ import annotations

import asyncio
import json

import pytest

from server.worker.errors import LoadFailed
from support.api.http import COMPLETIONS, Live, client, error_of, events
from support.fakes.engine import FakeEngine, make_app, make_folder_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
A = {"model": "a"}


async def test_a_model_is_loaded_and_unloaded():
    async with client(make_folder_app(FakeEngine(name="a"))) as http:
        for path, state in (
            ("load", "ready"),
            ("load", "ready"),
            ("unload", "unloaded"),
            ("unload", "unloaded"),
        ):
            body = (await http.post(f"/v1/models/{path}", json=A)).json()
            assert body == {"success": True, "model": "a", "state": state}
        error_of(await http.post("/v1/models/load", json={"model": "b"}), 404)


async def test_load_is_reported_by_events():
    engine = FakeEngine(name="a")
    engine.load_gate, engine.progress = asyncio.Event(), 0.25
    app = make_folder_app(engine)
    async with client(app):
        live = Live(app, "/v1/models/load", {**A, "stream": True})
        await live.until('"value":0.25')
        engine.progress = 0.5
        await live.until('"value":0.5')
        engine.load_gate.set()
        lines = events(await live.finish())
    assert [event["event"] for event in lines] == ["model_status"] * len(lines)
    assert lines[-1] == {"model": "a", "event": "model_status", "data": {"status": "loaded"}}
    assert lines[-2]["data"]["status"] == "loading"
    assert lines[-2]["data"]["progress"] == {"stages": ["text_model"], "current": "text_model", "value": 0.5}


async def test_failed_load_is_reported():
    engine = FakeEngine(name="a")
    engine.load_error = LoadFailed("ModelError", "/secret/a.gguf: truncated")
    app = make_folder_app(engine)
    async with client(app) as http:
        assert error_of(await http.post("/v1/models/load", json=A), 503)["code"] == "load_failed"
        last = events((await http.post("/v1/models/load", json={**A, "stream": True})).text)[-1]
        assert last["error"]["code"] == "load_failed"
        (card,) = (await http.get("/v1/models")).json()["data"]
        assert (card["state"], card["status"]) == ("failed", {"value": "unloaded", "failed": True})
        health = await http.get("/health")
        assert (health.status_code, health.json()["models"]["a"]["state"]) == (200, "failed")
        assert "/secret" not in health.text


async def test_unload_waits_for_running_requests():
    engine = FakeEngine([11] * 20, name="a")
    engine.gate.clear()
    app = make_folder_app(engine)
    async with client(app) as http:
        running = asyncio.create_task(http.post(COMPLETIONS, json={**A, "prompt": "Once"}))
        await until(lambda: engine.seen)
        unloading = asyncio.create_task(http.post("/v1/models/unload", json=A))
        await until(lambda: app.state.ggserve.registry.models["a"].draining)
        (card,) = (await http.get("/v1/models")).json()["data"]
        assert (card["state"], card["status"]["value"]) == ("draining", "loaded")
        assert (await http.get("/health")).json()["models"]["a"]["state"] == "draining"
        late = asyncio.create_task(http.post(COMPLETIONS, json={**A, "prompt": "Once"}))
        await until(lambda: app.state.ggserve.registry.models["a"].n_waiting)
        engine.gate.set()
        assert [(await task).status_code for task in (running, unloading, late)] == [200, 200, 200]


async def test_load_and_unload_routes_of_llama_server_answer_at_once():
    engine = FakeEngine(name="a")
    engine.load_gate = asyncio.Event()
    app = make_folder_app(engine)
    model = app.state.ggserve.registry.models["a"]
    async with client(app) as http:
        assert error_of(await http.post("/models/unload", json=A), 400)["code"] == "model_not_loaded"
        assert (await http.post("/models/load", json=A)).json() == {"success": True}
        assert (await http.get("/models")).json()["data"][0]["status"]["value"] == "loading"
        assert error_of(await http.post("/models/load", json=A), 400)["code"] == "model_loaded"
        engine.load_gate.set()
        await until(lambda: model.state == "ready")
        assert (await http.post("/models/unload", json=A)).json() == {"success": True}
        await until(lambda: model.state == "unloaded")


async def test_changes_of_every_model_are_events():
    app = make_folder_app(FakeEngine(name="a"), keep_alive_s=0.01)
    async with client(app) as http:
        live = Live(app, "/models/sse", {})
        live.task.cancel()
        stream = asyncio.create_task(http.get("/models/sse"))
        await asyncio.sleep(0)
        await http.post("/v1/models/load", json=A)
        await asyncio.sleep(0.3)
        app.state.ggserve.stopping = True  # which ends it
        text = (await stream).text
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == {"model": "a", "event": "model_status", "data": {"status": "loaded"}}
    assert ": keep-alive" in text


async def test_single_configured_model_is_unloaded_and_loaded_on_request():
    engine = FakeEngine()
    engine.reloads = True
    async with client(make_app(engine)) as http:
        assert (await http.post("/v1/models/unload", json={"model": "stories"})).json()["state"] == "unloaded"
        health = await http.get("/health")
        assert (health.status_code, health.json()["models"]["stories"]["state"]) == (200, "unloaded")
        assert (await http.post(COMPLETIONS, json={"prompt": "Once"})).status_code == 200
        assert (await http.get("/health")).json()["models"]["stories"]["state"] == "ready"
