"""Heads and bodies that are refused before a route sees them."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from support.fake_engine import FakeEngine, make_app, serving
from support.http import COMPLETIONS, JSON, client, error_of

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
async def test_other_content_types(kind):
    async with client() as http:
        headers = {} if kind is None else {"content-type": kind}
        response = await http.post(COMPLETIONS, content=BODY, headers=headers)
    assert "application/json" in error_of(response, 415)["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/x+json;charset="utf-8"']
)
async def test_spellings_of_json(kind):
    async with client() as http:
        response = await http.post(COMPLETIONS, content=BODY, headers={"content-type": kind})
    assert response.status_code == 200


async def test_encodings():
    async with client() as http:
        for headers in ({"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-16"}):
            error_of(await http.post(COMPLETIONS, content=BODY, headers={**JSON, **headers}), 415)
        plain = await http.post(COMPLETIONS, content=BODY, headers={**JSON, "content-encoding": "identity"})
    assert plain.status_code == 200


async def test_a_body_is_counted_not_believed():
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


async def test_headers():
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
async def test_hosts_of_a_local_server(host, status):
    async with client() as http:
        response = await http.get("/v1/models", headers={"host": host})
    assert response.status_code == status
    if status == 403:
        assert error_of(response, 403)["code"] == "host_not_allowed"


async def test_hosts_of_a_public_server():
    async with client(make_app(host="0.0.0.0")) as http:
        assert (await http.get("/v1/models", headers={"host": "any.example"})).status_code == 200
    async with client(make_app(host="0.0.0.0", allowed_hosts=["llm.example"])) as http:
        assert (await http.get("/v1/models", headers={"host": "llm.example:443"})).status_code == 200
        assert (await http.get("/v1/models", headers={"host": "any.example"})).status_code == 403


def _talk(base: str, data: bytes, *more: bytes) -> bytes:
    """Raw bytes to the server; everything it answers until it closes."""
    host, port = base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(data)
        for part in more:
            sock.sendall(part)
        found = b""
        while part := sock.recv(65536):
            found += part
    return found


async def test_on_the_wire():
    """What only a real connection shows: slow bodies, bodies without end, odd framing."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    app = make_app(FakeEngine(), max_body_bytes=10_000, body_timeout_s=0.3)
    with serving(app) as base:

        async def status(*parts: bytes) -> tuple[int, dict]:
            answer = await asyncio.to_thread(_talk, base, *parts)
            line, _, rest = answer.partition(b"\r\n")
            return int(line.split()[1]), json.loads(rest.rpartition(b"\r\n\r\n")[2] or b"{}")

        slow, error = await status(head + b"Content-Length: 50\r\n\r\n{")
        assert slow == 408
        assert error["error"]["code"] == "body_timeout"
        endless = [b"1000\r\n" + b" " * 4096 + b"\r\n"] * 4
        assert (await status(head + b"Transfer-Encoding: chunked\r\n\r\n", *endless))[0] == 413
        assert (await status(head + b"Content-Length: 999999999999\r\n\r\n"))[0] == 413
        both = head + b"Content-Length: 18\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        answer = await asyncio.to_thread(_talk, base, both + b"12\r\n" + BODY + b"\r\n0\r\n\r\n")
        assert answer.split()[1] == b"400"
        fine = head + b"Content-Length: 18\r\nConnection: close\r\n\r\n" + BODY
        assert (await status(fine))[0] == 200
