"""Heads and bodies that are refused before a route sees them. On a socket: test_bad_input_wire.py."""

from __future__ import annotations

import pytest

from support.api.http import COMPLETIONS, JSON, client, error_of
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio
BODY = b'{"prompt": "Once"}'


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "multipart/form-data",
    ],
)
async def test_other_content_types_are_refused(kind):
    async with client() as http:
        headers = {} if kind is None else {"content-type": kind}
        response = await http.post(COMPLETIONS, content=BODY, headers=headers)
    assert "application/json" in error_of(response, 415)["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/x+json;charset="utf-8"']
)
async def test_json_content_type_in_any_spelling_is_accepted(kind):
    async with client() as http:
        response = await http.post(COMPLETIONS, content=BODY, headers={"content-type": kind})
    assert response.status_code == 200


async def test_body_in_another_encoding_is_refused():
    async with client() as http:
        for headers in ({"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-16"}):
            error_of(await http.post(COMPLETIONS, content=BODY, headers={**JSON, **headers}), 415)
        plain = await http.post(COMPLETIONS, content=BODY, headers={**JSON, "content-encoding": "identity"})
    assert plain.status_code == 200


async def test_body_size_is_counted_whatever_content_length_says():
    async def chunks(n):
        for _ in range(n):
            yield b" " * 1000

    async with client(make_app(max_body_bytes=5000)) as http:
        whole = await http.post(COMPLETIONS, content=b" " * 5001, headers=JSON)
        streamed = await http.post(COMPLETIONS, content=chunks(6), headers=JSON)
        fits = await http.post(COMPLETIONS, content=b" " * (5000 - len(BODY)) + BODY, headers=JSON)
        lying = await http.post(COMPLETIONS, content=chunks(6), headers={**JSON, "content-length": "10"})
        no_number = await http.post(COMPLETIONS, content=BODY, headers={**JSON, "content-length": "1e9"})
    for response in (whole, streamed, lying, no_number):
        assert "5000" in error_of(response, 413)["message"]
        assert response.headers["connection"] == "close"
    assert fits.status_code == 200


async def test_headers_beyond_the_limits_are_refused():
    async with client() as http:
        long = await http.get("/health", headers={"x-long": "a" * 70_000})
        many = await http.get("/health", headers=[(f"x-{i}", "a") for i in range(300)])
        two = await http.get("/health", headers=[("host", "localhost"), ("host", "evil.example")])
        both = await http.post(
            COMPLETIONS,
            content=BODY,
            headers={**JSON, "content-length": str(len(BODY)), "transfer-encoding": "chunked"},
        )
    async with client(make_app(max_header_bytes=2048)) as http:
        query = await http.get("/props?x=" + "a" * 2048)
        path = await http.get("/" + "a" * 2048)
    for response in (long, many, query, path):
        error_of(response, 431)
    error_of(two, 400)
    error_of(both, 400)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:9", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.nip.io", 403),
        ("", 403),
    ],
)
async def test_local_server_answers_only_its_own_hosts(host, status):
    async with client() as http:
        response = await http.get("/v1/models", headers={"host": host})
    assert response.status_code == status
    if status == 403:
        assert error_of(response, 403)["code"] == "host_not_allowed"


async def test_public_server_answers_its_allowed_hosts():
    async with client(make_app(host="0.0.0.0")) as http:
        assert (await http.get("/v1/models", headers={"host": "any.example"})).status_code == 200
    async with client(make_app(host="0.0.0.0", allowed_hosts=["llm.example"])) as http:
        assert (await http.get("/v1/models", headers={"host": "llm.example:443"})).status_code == 200
        assert (await http.get("/v1/models", headers={"host": "any.example"})).status_code == 403
