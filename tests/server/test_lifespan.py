"""Start and stop of the application and its engines."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from server.http.route import Route
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, make_app
from support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_engines_start_and_stop_with_the_application():
    engine = FakeEngine()
    engine.state = "loading"

    async def start():
        engine.state = "ready"

    engine.start = start
    app = make_app(engine)
    async with client(app) as http:
        await until(lambda: engine.state == "ready")  # it starts beside the first request
        assert (await http.get("/health")).json()["status"] == "ok"
    assert engine.state == "stopped"


async def test_model_that_cannot_draft_is_named_if_drafts_are_configured(caplog):
    engines = {name: FakeEngine(name=name) for name in ("mamba", "llama", "bert")}
    engines["mamba"].info = {"generates": True, "drafts": False}
    engines["bert"].info = {"generates": False, "drafts": False}
    for spec_type, names in (("none", []), ("ngram-simple", ["mamba"])):
        caplog.clear()
        async with client(make_app(engines, spec_type=spec_type)):
            await asyncio.sleep(0.01)
        assert [
            name
            for name in engines
            for line in caplog.messages
            if f"'{name}' cannot use speculative decoding" in line
        ] == names


async def test_routes_are_prepared_once_the_models_are_loaded():
    may_start = asyncio.Event()

    class Slow(FakeEngine):
        async def start(self):
            await may_start.wait()

    route = Route("/own", lambda: {})
    app = make_app(Slow())
    app.router.routes.append(route)
    async with client(app):
        await asyncio.sleep(0.05)
        assert "dependant" not in vars(route)
        may_start.set()
        await until(lambda: "dependant" in vars(route))


async def test_engines_start_in_turn():
    order, both = [], asyncio.Event()

    class Slow(FakeEngine):
        async def start(self):
            order.append(f"{self.name} begins")
            for _ in range(10):  # time for the other one to start too
                await asyncio.sleep(0)
            order.append(f"{self.name} ready")
            if self.name == "two":
                both.set()
            if self.name == "one":
                raise RuntimeError("cannot")

    app = make_app({name: Slow(name=name) for name in ("one", "two")})
    async with client(app):
        await asyncio.wait_for(both.wait(), 60)
    assert order == ["one begins", "one ready", "two begins", "two ready"]


async def test_stop_ends_running_requests():
    engine = FakeEngine([11] * 10_000, delay_s=0.05)
    app = make_app(engine)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        async with app.router.lifespan_context(app):
            whole = asyncio.create_task(http.post(COMPLETIONS, json={"prompt": "Once"}))
            stream = asyncio.create_task(http.post(COMPLETIONS, json={"prompt": "Once", "stream": True}))
            await until(lambda: len(engine.seen) == 2 and all(info.n_generated for info in engine.requests()))
        assert error_of(await whole, 503)["code"] == "shutting_down"
        assert '"code":"shutting_down"' in (await stream).text
        late = await http.post(COMPLETIONS, json={"prompt": "Once"})
        assert error_of(late, 503)["code"] == "shutting_down"
        assert (await http.get("/health")).json()["status"] == "stopping"
