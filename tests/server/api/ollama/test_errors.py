"""Errors below /api/ have Ollama's shape, wherever they come from."""

from __future__ import annotations

import json

import pytest

from support.api.http import JSON, client
from support.api.routes import refusal
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
GENERATE = "/api/generate"
BODY = {"model": "stories", "prompt": "A cat"}
KEY = {"authorization": "Bearer sesame"}
LATIN = "application/json; charset=latin-1"


@pytest.mark.parametrize("path", [GENERATE, "/api/chat", "/api/show", "/api/embed"])
async def test_refusals_of_every_layer_are_a_text(path):
    app = make_app(api_key=["sesame"], max_body_bytes=1024)
    async with client(app) as http:
        assert "API key" in refusal(await http.post(path, json=BODY), path, 401)["message"]
        large = await http.post(path, json={**BODY, "x": "y" * 2000}, headers=KEY)
        assert "bytes" in refusal(large, path, 413)["message"]
        foreign = await http.post(path, content=b"{}", headers={**KEY, "origin": "https://evil.example"})
        assert "--cors-origins" in refusal(foreign, path, 403)["message"]
        other = await http.post(path, content=b"{}", headers={**KEY, "content-type": LATIN})
        assert "UTF-8 only" in refusal(other, path, 415)["message"]
        broken = await http.post(path, content=b"{", headers={**KEY, **JSON})
        assert refusal(broken, path)["message"].startswith("the body is not valid JSON")
        refusal(await http.put(path, json=BODY, headers=KEY), path, 405)
        refusal(await http.post("/api/nothing", json=BODY, headers=KEY), path, 404)
    async with client(app, host="evil.example") as http:
        refusal(await http.post(path, json=BODY, headers=KEY), path, 403)


@pytest.mark.parametrize("path", [GENERATE, "/api/chat", "/api/show", "/api/embeddings"])
@pytest.mark.parametrize("name", ["llama3.2", "llama3.2:latest", "stories:7b"])
async def test_unknown_model_gets_the_words_that_clients_look_for(path, name):
    async with client() as http:
        response = await http.post(path, json={"model": name})
    assert (response.status_code, response.json()) == (404, {"error": f"model '{name}' not found"})


async def test_full_queue_and_a_model_that_is_not_there():
    engine = FakeEngine()
    async with client(engine) as http:
        engine.full = True
        response = await http.post(GENERATE, json=BODY)
        assert "queue" in refusal(response, GENERATE, 429)["message"]
        assert response.headers["retry-after"] == "3"
        engine.full = False
        engine.state = "loading"
        assert "is loading" in refusal(await http.post(GENERATE, json=BODY), GENERATE, 503)["message"]


async def test_failure_in_the_middle_of_a_stream_is_its_last_line():
    async with client(FakeEngine(fail_after=2)) as http:
        response = await http.post(GENERATE, json=BODY)
    assert response.status_code == 200
    *before, last = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line["response"] for line in before) == " there was"
    assert set(last) == {"error"}
    assert last["error"].startswith("internal error (request ")
    assert "secret" not in response.text
