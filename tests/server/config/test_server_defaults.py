"""What the operator decides for requests that do not say: sampling, the model, routes that are off."""

from __future__ import annotations

import pytest

from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("path", "body"), [(COMPLETIONS, {"prompt": "Hi"}), (CHAT, {"messages": user("Hi")})]
)
async def test_server_defaults_apply_unless_a_request_overrides_them(path, body):
    engine = FakeEngine()
    async with client(make_app(engine, default=["top_k=40", "max_tokens=3"])) as http:
        assert "warnings" not in (await http.post(path, json={**body, "temperature": 0})).json()
        await http.post(path, json={**body, "top_k": 7, "max_tokens": 2})
    assert [(r.params.top_k, r.params.max_tokens) for r in engine.seen] == [(40, 3), (7, 2)]


async def test_unknown_names_are_answered_by_any_model_if_allowed():
    engines = {name: FakeEngine(name=name) for name in ("a", "b")}
    async with client(make_app(engines, any_model=True)) as http:
        for requested, served in (("gpt-4", "a"), (None, "a"), ("b", "b")):
            response = await http.post(COMPLETIONS, json={"prompt": "Hi", "model": requested})
            assert response.json()["model"] == served
    async with client(make_app(engines)) as http:
        error_of(await http.post(COMPLETIONS, json={"prompt": "Hi", "model": "gpt-4"}), 404)


@pytest.mark.parametrize("route", ["metrics", "slots"])
async def test_route_can_be_turned_off(route):
    async with client(make_app(None, **{f"no_{route}": True})) as http:
        assert error_of(await http.get(f"/{route}"), 501)["code"] == "not_supported"
    async with client() as http:
        assert (await http.get(f"/{route}")).status_code == 200


async def test_a_model_may_have_several_names_and_tags():
    engines = {name: FakeEngine(name=name) for name in ("a", "b")}
    model = ["a=/x/a.gguf", "b=/x/b.gguf"]
    async with client(make_app(engines, model=model, alias=["first", "b=second"], tag=["small"])) as http:
        for requested, served in (("first", "a"), ("second", "b"), ("a", "a")):
            response = await http.post(COMPLETIONS, json={"prompt": "Hi", "model": requested})
            assert response.json()["model"] == served
        data = (await http.get("/v1/models")).json()["data"]
        assert [(entry["id"], entry["aliases"]) for entry in data] == [
            ("a", ["a", "first"]),
            ("b", ["b", "second"]),
        ]
        assert data[0]["tags"] == ["small"]
        assert (await http.get("/v1/models/second")).json()["id"] == "b"
        error_of(await http.post(COMPLETIONS, json={"prompt": "Hi", "model": "third"}), 404)
