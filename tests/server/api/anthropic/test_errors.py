"""Errors below /v1/messages have Anthropic's shape, wherever they come from."""

from __future__ import annotations

import json

import pytest

from support.api.http import JSON, client, user
from support.api.named_events import named_events
from support.api.routes import refusal as checked_refusal
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
BODY = {"messages": user("A cat"), "max_tokens": 20}


def refusal(response, status):
    """The type and message of an error, whose shape is checked."""
    error = checked_refusal(response, MESSAGES, status)
    return error["type"], error["message"]


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_refusals_of_every_layer_have_the_anthropic_shape(path):
    app = make_app(api_key=["sesame"], max_body_bytes=1024)
    key = {"x-api-key": "sesame", "anthropic-version": "2023-06-01"}
    async with client(app) as http:
        type, _ = refusal(await http.post(path, json=BODY), 401)
        assert type == "authentication_error"
        type, _ = refusal(await http.post(path, json={**BODY, "x": "y" * 2000}, headers=key), 413)
        assert type == "request_too_large"
        type, _ = refusal(await http.post(path, content=b"{}", headers=key), 415)
        assert type == "invalid_request_error"
        type, message = refusal(await http.post(path, content=b"{", headers={**key, **JSON}), 400)
        assert (type, message[:22]) == ("invalid_request_error", "the body is not valid ")
        type, message = refusal(await http.post(path, json={**BODY, "model": "gpt"}, headers=key), 404)
        assert (type, message[:21]) == ("not_found_error", "model: no model 'gpt'")
        type, _ = refusal(await http.put(path, json=BODY, headers=key), 405)
        assert type == "invalid_request_error"
        type, _ = refusal(await http.post(f"{MESSAGES}/batches", json={}, headers=key), 404)
        assert type == "not_found_error"
        assert (await http.post(path, json=BODY, headers=key)).status_code == 200
    async with client(app, host="evil.example") as http:
        type, _ = refusal(await http.post(path, json=BODY, headers=key), 403)
        assert type == "permission_error"


async def test_full_queue_and_unavailable_model_have_their_error_types():
    engine = FakeEngine()
    async with client(engine) as http:
        engine.full = True
        response = await http.post(MESSAGES, json=BODY)
        assert refusal(response, 429)[0] == "rate_limit_error"
        assert response.headers["retry-after"] == "3"
        engine.full = False
        engine.state = "loading"
        response = await http.post(MESSAGES, json=BODY)
        assert refusal(response, 503)[0] == "overloaded_error"
        assert response.headers["x-should-retry"] == "true"
        engine.state = "failed"
        assert refusal(await http.post(MESSAGES, json=BODY), 503)[0] == "api_error"


async def test_overlong_prompt_error_is_phrased_for_clients_that_compact():
    engine = FakeEngine(n_ctx=64)
    async with client(engine) as http:
        body = {**BODY, "messages": user("A cat. " * 40)}
        type, message = refusal(await http.post(MESSAGES, json=body), 400)
        words = message.split()
        assert (type, words[:4]) == ("invalid_request_error", ["prompt", "is", "too", "long:"])
        assert (words[5:7], words[8]) == (["tokens", ">"], "maximum")
        assert int(words[4]) > int(words[7]) == 63
        fits = {**BODY, "messages": user("A cat.")}
        assert (await http.post(MESSAGES, json=fits)).status_code == 200


async def test_internal_errors_reveal_no_details():
    async with client(FakeEngine(fail_after=0)) as http:
        for stream in (False, True):
            type, message = refusal(await http.post(MESSAGES, json={**BODY, "stream": stream}), 500)
            assert type == "api_error"
            assert "secret" not in message


async def test_an_error_in_the_middle_of_a_stream_is_an_event():
    async with client(FakeEngine(fail_after=2)) as http:
        response = await http.post(MESSAGES, json={**BODY, "stream": True}, headers={"x-request-id": "mine"})
    assert response.status_code == 200
    *_, last = named_events(response.text)
    assert last["error"]["type"] == "api_error"
    assert (last["type"], last["request_id"]) == ("error", "mine")
    assert "secret" not in json.dumps(last)


async def test_errors_of_other_routes_keep_their_shape():
    async with client() as http:
        response = await http.post("/v1/chat/completions", json={})
        assert set(response.json()) == {"error"}
        assert "request-id" not in response.headers
