"""The values of sampling fields that a request leaves out, on every route."""

from __future__ import annotations

import pytest

from server.config.default_sampling import LLAMA_SERVER, default_sampling
from support.api.http import CHAT, COMPLETIONS, client, user
from support.fakes.engine import FakeEngine, make_app

ROUTES = [
    (COMPLETIONS, {"prompt": "Once"}),
    (CHAT, {"messages": user("A cat")}),
    ("/v1/responses", {"input": "A cat"}),
    ("/v1/messages", {"messages": user("A cat"), "max_tokens": 9}),
    ("/completion", {"prompt": "Once"}),
]


def test_defaults_are_the_operators_then_the_files_then_llama_servers() -> None:
    info = {"sampling": {"temperature": 0.6, "mirostat": 2}}
    assert default_sampling(None, {}) == LLAMA_SERVER
    assert default_sampling(info, {"top_k": 7, "mirostat": 0}) == {
        "temperature": 0.6,
        "top_k": 7,
        "top_p": 0.95,
        "min_p": 0.05,
        "mirostat": 0,
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_request_fields_override_the_defaults(path, body) -> None:
    engine = FakeEngine()

    def used():
        params = engine.seen[-1].params
        return params.temperature, params.top_k, params.top_p, params.min_p, params.repeat_penalty

    async with client(engine) as http:
        reply = (await http.post(path, json=body)).json()
        assert used() == (0.8, 40, 0.95, 0.05, 1.0)
        assert "warnings" not in reply
    engine = FakeEngine()
    engine.info["sampling"] = {"temperature": 0.6, "min_p": 0.0, "repeat_penalty": 1.1}
    async with client(engine) as http:
        await http.post(path, json=body)
        assert used() == (0.6, 40, 0.95, 0.0, 1.1)
    engine.state = "ready"
    async with client(make_app(engine, default=["temperature=0.3", "top_p=0.5"])) as http:
        await http.post(path, json=body)
        assert used() == (0.3, 40, 0.5, 0.0, 1.1)
        await http.post(path, json={**body, "temperature": 1, "top_p": 1, "top_k": 9})
        assert used() == (1.0, 9, 1.0, 0.0, 1.1)


@pytest.mark.asyncio
async def test_props_shows_the_defaults_in_effect() -> None:
    engine = FakeEngine()
    engine.info["sampling"] = {"temperature": 0.6, "repeat_penalty": 1.1}
    async with client(make_app(engine, default=["top_k=7"])) as http:
        values = (await http.get("/props")).json()["default_generation_settings"]["params"]
    shown = [values[name] for name in ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")]
    assert shown == [0.6, 7, 0.95, 0.05, 1.1]
