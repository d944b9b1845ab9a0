"""The application as a whole: which routes there are, who may call them, ids, log lines, life."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from openai.types.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsStreaming

from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.api.routes import every_path
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
KEYED = {"api_key": ["sesame", "second-key"]}
GOOD = {"authorization": "Bearer sesame"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("authorization", "Bearer sesame")], 200),
        ([("authorization", "bearer sesame")], 200),
        ([("authorization", "Bearer   sesame ")], 200),
        ([("authorization", "Bearer second-key")], 200),
        ([("x-api-key", "sesame")], 200),
        ([("x-api-key", "sesame"), ("authorization", "Bearer wrong")], 200),
        ([("authorization", "Bearer wrong")], 401),
        ([("authorization", "Bearer sesam")], 401),
        ([("authorization", "Bearer sesamee")], 401),
        ([("authorization", "Bearer ")], 401),
        ([("authorization", "Bearer")], 401),
        ([("authorization", "")], 401),
        ([("authorization", "sesame")], 401),
        ([("authorization", "Basic sesame")], 401),
        ([("authorization", "Bearer sesame"), ("authorization", "Bearer wrong")], 401),
        ([("x-api-key", "sesame"), ("x-api-key", "wrong")], 401),
        ([("x-api-key", "")], 401),
        ([("cookie", "sesame")], 401),
        ([("authorization", b"Bearer \xff\xfe")], 401),
    ],
)
async def test_requests_without_a_valid_key_are_refused(headers, status, caplog):
    caplog.set_level("INFO")
    async with client(make_app(**KEYED)) as http:
        response = await http.get("/v1/models", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert error_of(response, 401)["type"] == "authentication_error"
    assert "sesame" not in response.text + caplog.text


async def test_body_without_a_valid_key_is_not_read():
    async def never():
        raise AssertionError("the body was read")
        yield b""

    async with client(make_app(**KEYED)) as http:
        response = await http.post(COMPLETIONS, content=never(), headers={"content-type": "application/json"})
    error_of(response, 401)


async def test_cors_is_off_unless_configured():
    preflight = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    async with client(make_app(**KEYED)) as http:
        refused = await http.options(COMPLETIONS, headers=preflight)
    assert "access-control-allow-origin" not in refused.headers
    app = make_app(**KEYED, cors_origins=["https://chat.example"])
    async with client(app) as http:
        allowed = await http.options(
            COMPLETIONS,
            headers={**preflight, "access-control-request-headers": "authorization, content-type"},
        )
        other = await http.options(COMPLETIONS, headers={**preflight, "origin": "https://evil.example"})
        answer = await http.get("/v1/models", headers={**GOOD, "origin": "https://chat.example"})
        foreign = await http.get("/v1/models", headers={**GOOD, "origin": "https://evil.example"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-credentials" not in allowed.headers
    assert other.status_code == 400
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("request_id", ["abc", "A.b_c-9", "x" * 128])
async def test_request_ids_are_returned(request_id, caplog):
    caplog.set_level("INFO", logger="ggserve.access")
    async with client() as http:
        response = await http.get("/v1/models", headers={"x-request-id": request_id})
    assert response.headers["x-request-id"] == request_id
    assert caplog.records[-1].fields["request_id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "a\tb", "é", "a;b", '"', "%0a"])
async def test_invalid_request_ids_are_replaced(request_id):
    async with client() as http:
        response = await http.get("/nothing", headers={"x-request-id": request_id.encode()})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_every_request_is_logged_in_one_line(caplog):
    caplog.set_level("INFO", logger="ggserve.access")
    requests = []
    async with client(FakeEngine(n_ctx=16)) as http:
        for body in ({"prompt": "Once"}, {"prompt": "Once", "stream": True}, {"prompt": [9] * 99}, {"n": 5}):
            requests.append(await http.post(COMPLETIONS, json=body))
        requests.append(await http.get("/a%0ab%1b[31m"))
        requests.append(await http.get("/health", headers={"host": "evil.example"}))
    records = [record for record in caplog.records if record.name == "ggserve.access"]
    assert (
        [r.fields["status"] for r in records]
        == [a.status_code for a in requests]
        == [200, 200, 400, 400, 404, 403]
    )
    for record in records:
        assert "\n" not in record.getMessage()
        assert "\x1b" not in record.getMessage()
        assert record.fields["ms"] >= 0
    for record in records[:2]:
        assert record.fields["prompt_n"] == 2
        assert record.fields["predicted_n"] == 15
        assert record.fields["finish"] == "stop"
        assert record.fields["ttft_ms"] >= 0


async def test_openapi_describes_every_field():
    async with client() as http:
        described = (await http.get("/openapi.json")).json()
        docs = await http.get("/docs")
    assert docs.status_code == 200
    body = described["paths"][COMPLETIONS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = described["components"]["schemas"][body["$ref"].rsplit("/", 1)[1]]["properties"]
    for name in (
        "prompt",
        "batch_size",
        "n_batch",
        "min_p",
        "mirostat",
        "timeout_ms",
        "cache_prompt",
        "logit_bias",
    ):
        assert fields[name].get("description"), name
    assert "ChatReply" in described["components"]["schemas"]
    assert described["paths"][CHAT]["post"]["responses"]["429"]


async def test_documentation_names_every_route_and_field():
    text = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
    app = make_app()
    for method, path in sorted(every_path(app)):
        if method != "HEAD":
            assert f"`{method} {path.replace(':path', '')}`" in text, (method, path)
    async with client(app) as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    official = set(CompletionCreateParamsBase.__annotations__) | set(
        CompletionCreateParamsStreaming.__annotations__
    )
    for field in set(schemas["CompletionRequest"]["properties"]) - official:
        assert f"`{field}`" in text, field


async def test_applications_share_no_state():
    one, two = make_app(FakeEngine(" one")), make_app(FakeEngine(" two"))
    async with client(one) as a, client(two) as b:
        for http, text in ((a, " one"), (b, " two")):
            body = (await http.post(CHAT, json={"messages": user("x")})).json()
            assert body["choices"][0]["message"]["content"] == text
            assert 'route="/v1/chat/completions",status="200"} 1.0' in (await http.get("/metrics")).text
