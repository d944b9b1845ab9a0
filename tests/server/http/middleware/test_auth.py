"""Which requests pass with which keys."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import SecretStr

from server.generation.request_context import AccessRecord
from server.http.middleware.auth import Auth
from server.keys.key_ring import KeyRing
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


async def status(
    headers: list[tuple[str, str]], path: str = "/v1/models", keys=("one", "two"), method: str = "GET"
) -> tuple[int, dict]:
    """The status of the answer (200: it reached the application), and the scope."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": raw,
        "app": make_app(),  # which knows the formats of errors
        "ggserve.record": AccessRecord("r"),
    }
    await Auth(app, KeyRing([SecretStr(key) for key in keys]))(scope, None, send)
    if sent[0]["status"] == 401:
        assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]
    return sent[0]["status"], scope


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], 401),
        ([("Authorization", "Bearer one")], 200),
        ([("Authorization", "bearer  two ")], 200),
        ([("X-Api-Key", "two")], 200),
        ([("Authorization", "Bearer three")], 401),
        ([("Authorization", "Basic one")], 401),
        ([("Authorization", "one")], 401),
        ([("Authorization", "Bearer ")], 401),
        ([("X-Api-Key", "")], 401),
        ([("Authorization", "Bearer wrong"), ("X-Api-Key", "one")], 200),
        ([("Authorization", "Bearer one"), ("Authorization", "Bearer wrong")], 401),
        ([("X-Api-Key", "one"), ("X-Api-Key", "one")], 401),
    ],
)
async def test_request_with_one_valid_key_passes(headers, expected):
    assert (await status(headers))[0] == expected


@pytest.mark.parametrize("path", ["/page/scripts/main.js", "/page/x/../y"])
async def test_files_of_the_web_page_need_no_key(path):
    assert (await status([], path))[0] == 200


async def test_every_request_passes_if_there_are_no_keys():
    code, scope = await status([], keys=())
    assert code == 200
    assert scope["ggserve.client"].name is None


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/health", "/v1/health"])
async def test_public_paths_need_no_key(path):
    assert (await status([], path))[0] == 200
    assert (await status([], path + "x"))[0] == 401


async def test_key_identifies_the_client():
    _, scope = await status([("X-Api-Key", "two")])
    assert scope["ggserve.client"].name == f"key-{hashlib.sha256(b'two').hexdigest()[:8]}"


async def test_a_public_route_without_a_key_has_no_client():
    _, scope = await status([], "/health")
    assert "ggserve.client" not in scope


async def test_routes_of_admins_are_closed_to_other_keys():
    headers = [("X-Api-Key", "one")]
    assert (await status(headers, "/lora-adapters", method="POST"))[0] == 403
    assert (await status(headers, "/lora-adapters"))[0] == 200
    assert (await status(headers, "/lora-adapters", keys=("one",), method="POST"))[0] == 200  # the only key
