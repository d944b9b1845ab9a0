"""Requests for a model that is not loaded."""

from __future__ import annotations

import asyncio
import json

import pytest

from server.worker.errors import LoadFailed
from support.api.http import CHAT, COMPLETIONS, Live, client, error_of, events, text_of, user
from support.fakes.engine import TEXT, FakeEngine, make_folder_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
HELLO = {"model": "a", "prompt": "Once", "temperature": 0}


def gated(name: str = "a") -> FakeEngine:
    engine = FakeEngine(name=name)
    engine.load_gate = asyncio.Event()
    return engine


def leases_of(app, name: str = "a") -> int:
    return app.state.ggserve.registry.models[name].residency.n_users


async def test_a_request_loads_its_model_and_is_answered(caplog):
    caplog.set_level("INFO", logger="ggserve.access")
    app = make_folder_app(FakeEngine(name="a"), FakeEngine(name="b"))
    async with client(app) as http:
        assert (await http.post(COMPLETIONS, json=HELLO)).json()["choices"][0]["text"] == TEXT
        states = {entry["id"]: entry["state"] for entry in (await http.get("/v1/models")).json()["data"]}
        assert states == {"a": "ready", "b": "unloaded"}
        assert leases_of(app) == 0
        await http.post(COMPLETIONS, json=HELLO)
    first, _, second = (record.fields for record in caplog.records)
    assert first["load_ms"] >= 0
    assert "load_ms" not in second


async def test_invalid_request_loads_no_model():
    app = make_folder_app(FakeEngine(name="a"))
    async with client(app) as http:
        error_of(await http.post(COMPLETIONS, json={**HELLO, "temperature": -1}), 400)
        assert app.state.ggserve.registry.models["a"].state == "unloaded"


async def test_a_stream_is_kept_open_while_its_model_is_loaded():
    engine = gated()
    app = make_folder_app(engine, keep_alive_s=0.01)
    async with client(app):
        live = Live(app, COMPLETIONS, {**HELLO, "stream": True})
        await live.until(": keep-alive, loading a 100%\n\n: keep-alive, loading a")
        assert live.status == 200
        engine.load_gate.set()
        body = await live.finish()
    assert text_of(events(body)) == TEXT
    assert leases_of(app) == 0


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (COMPLETIONS, HELLO, 'data: {"error":{"message":"model \'a\' cannot be loaded'),
        ("/v1/messages", {"model": "a", "messages": user("Hi"), "max_tokens": 5}, "event: error\ndata: "),
        ("/api/generate", HELLO, ' {"error":"model: \'a\''),
    ],
)
async def test_failed_load_ends_a_begun_stream_with_an_event(path, body, error):
    engine = gated()
    engine.load_error = LoadFailed("ModelError", "/secret/a.gguf: bad")
    app = make_folder_app(engine, keep_alive_s=0.01)
    async with client(app):
        live = Live(app, path, {**body, "stream": True})
        await until(lambda: live.sent)
        engine.load_gate.set()
        text = await live.finish()
    assert live.status == 200
    assert "cannot be loaded; see the server's log" in text
    assert "/secret" not in text
    if path != "/api/generate":
        assert error in text
    else:
        assert json.loads(text.strip().splitlines()[-1])["error"].startswith("model")


async def test_request_error_after_the_stream_began_is_an_event():
    engine = gated()
    app = make_folder_app(engine, keep_alive_s=0.01)
    async with client(app):
        live = Live(app, COMPLETIONS, {"model": "a", "prompt": [9] * 600, "stream": True})
        await until(lambda: live.sent)
        engine.load_gate.set()
        text = await live.finish()
    assert '"code":"context_length_exceeded"' in text


async def test_internal_error_after_the_stream_began_is_an_event_without_details(caplog):
    engine = gated()
    app = make_folder_app(engine, keep_alive_s=0.01)
    async with client(app):
        live = Live(app, COMPLETIONS, {**HELLO, "stream": True})
        await until(lambda: live.sent)
        engine.n_ctx = None
        engine.load_gate.set()
        text = await live.finish()
    assert '"code":"internal_error"' in text
    assert "NoneType" not in text
    assert "TypeError" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_failures_before_a_stream_begins_have_their_status(stream):
    engine = FakeEngine(name="a")
    engine.load_error = LoadFailed("OutOfMemoryError", "CPU has 1 MiB free, but needs 2 MiB")
    async with client(make_folder_app(engine)) as http:
        for _ in range(2):  # it loads, and then it has failed a moment ago
            response = await http.post(COMPLETIONS, json={**HELLO, "stream": stream})
            error = error_of(response, 503)
            assert (error["code"], error["param"]) == ("out_of_memory", "model")
            assert "does not fit: CPU has 1 MiB free" in error["message"]
            assert response.headers["retry-after"] == "10"


async def test_waiting_for_a_load_counts_against_the_requests_timeout():
    engine = gated()
    async with client(make_folder_app(engine)) as http:
        error = error_of(await http.post(COMPLETIONS, json={**HELLO, "timeout_ms": 20}), 503)
    assert (error["code"], error["param"]) == ("timeout", "timeout_ms")
    engine = gated()
    async with client(make_folder_app(engine, request_timeout_s=0.02)) as http:
        error = error_of(await http.post(COMPLETIONS, json={**HELLO, "timeout_ms": 60_000}), 503)
    assert (error["code"], error["param"]) == ("timeout", None)
    app = make_folder_app(FakeEngine(name="a"))
    async with client(app) as http:
        await http.post(COMPLETIONS, json={**HELLO, "timeout_ms": 60_000})
    assert app.state.ggserve.engines["a"].seen[0].deadline_ms


@pytest.mark.parametrize("timeout_ms", [1, -5, "soon", [1]])
async def test_timeout_field_unknown_to_a_route_does_not_limit_the_wait(timeout_ms):
    engine = gated()
    app = make_folder_app(engine)
    async with client(app) as http:
        body = {"model": "a", "prompt": "Once", "stream": False, "timeout_ms": timeout_ms}
        waiting = asyncio.create_task(http.post("/api/generate", json=body))
        await until(lambda: app.state.ggserve.registry.models["a"].n_waiting)
        await asyncio.sleep(0.01)
        engine.load_gate.set()
        response = await waiting
    assert response.status_code == 200, response.text
    assert "timeout_ms has no effect" in response.json()["warnings"]


async def test_body_that_is_not_an_object_loads_the_model():
    async with client(make_folder_app(FakeEngine(name="a"))) as http:
        assert (await http.post("/lora-adapters?model=a", json=[])).status_code == 200


async def test_disconnected_client_stops_waiting():
    engine = gated()
    app = make_folder_app(engine)
    async with client(app):
        model = app.state.ggserve.registry.models["a"]
        for stream in (False, True):
            live = Live(app, COMPLETIONS, {**HELLO, "stream": stream})
            await until(lambda: model.n_waiting)
            live.leave()
            await live.finish()
            assert model.n_waiting == 0
            assert live.status == 499  # for the log: nobody reads it


async def test_requests_beyond_the_queue_do_not_wait_for_a_load():
    engine = gated()
    app = make_folder_app(engine)
    app.state.ggserve.registry.policy = type(app.state.ggserve.registry.policy)(max_waiting=1)
    async with client(app) as http:
        first = asyncio.create_task(http.post(COMPLETIONS, json=HELLO))
        await until(lambda: app.state.ggserve.registry.models["a"].n_waiting)
        assert error_of(await http.post(COMPLETIONS, json=HELLO), 429)["code"] == "queue_full"
        engine.load_gate.set()
        assert (await first).status_code == 200


async def test_client_leaves_room_in_the_queue_while_a_model_is_loaded():
    engine = gated()
    app = make_folder_app(engine, api_key=["key-a", "key-b"], parallel=1)
    registry = app.state.ggserve.registry
    registry.policy = type(registry.policy)(max_waiting=8)
    waiting = {}
    async with client(app) as http:
        for name in "ab":
            headers, tasks = {"authorization": f"Bearer key-{name}"}, []
            for _ in range(8):
                n = registry.models["a"].n_waiting
                task = asyncio.create_task(http.post(COMPLETIONS, json=HELLO, headers=headers))
                tasks.append(task)
                await until(lambda: task.done() or registry.models["a"].n_waiting > n)  # noqa: B023
            waiting[name] = [task for task in tasks if not task.done()]
            refused = [task.result() for task in tasks if task.done()]
            assert {error_of(response, 429)["code"] for response in refused} == {"queue_full"}
        engine.load_gate.set()
        answers = await asyncio.gather(*waiting["a"], *waiting["b"])
    assert [len(waiting[name]) for name in "ab"] == [5, 2]
    assert {response.status_code for response in answers} == {200}


async def test_models_without_autoload_are_loaded_only_explicitly():
    app = make_folder_app(FakeEngine(name="a"), no_models_autoload=True)
    async with client(app) as http:
        error = error_of(await http.post(COMPLETIONS, json=HELLO), 400)
        assert (error["code"], error["param"]) == ("model_not_loaded", "model")
        await http.post("/v1/models/load", json={"model": "a"})
        assert (await http.post(COMPLETIONS, json=HELLO)).status_code == 200


async def test_queries_about_a_model_do_not_load_it():
    app = make_folder_app(FakeEngine(name="a"))
    async with client(app) as http:
        for path in ("/props", "/slots", "/lora-adapters"):
            assert error_of(await http.get(path, params={"model": "a"}), 503)["code"] == "model_not_loaded"
        assert app.state.ggserve.registry.models["a"].state == "unloaded"


async def test_routes_without_streaming_wait_for_a_load():
    app = make_folder_app(FakeEngine(name="a"))
    async with client(app) as http:
        tokens = await http.post("/tokenize", json={"model": "a", "content": "Once", "stream": True})
        assert tokens.json()["tokens"]


async def test_a_background_response_keeps_its_model():
    engine = FakeEngine([11] * 50, name="a")
    engine.gate.clear()
    app = make_folder_app(engine, FakeEngine(name="b"), models_max=1)
    async with client(app) as http:
        body = {"model": "a", "input": "Hi", "background": True}
        id = (await http.post("/v1/responses", json=body)).json()["id"]
        other = asyncio.create_task(http.post(CHAT, json={"model": "b", "messages": user("Hi")}))
        await until(lambda: app.state.ggserve.registry.models["b"].load)
        assert leases_of(app) == 1
        engine.gate.set()
        assert (await other).status_code == 200
        assert (await http.get(f"/v1/responses/{id}")).json()["status"] == "completed"
