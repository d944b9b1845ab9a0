"""Calls of the application without a socket, and reading of event streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from support.fake_engine import FakeEngine, make_app

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def client(
    app: Any = None, host: str = "localhost", **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` (or of a new one around a FakeEngine), whose lifespan it runs."""
    if app is None or isinstance(app, FakeEngine):
        app = make_app(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}", **options) as found,
    ):
        yield found


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def events(text: str) -> list[dict[str, Any]]:
    """The data of each event; checks the framing and the end."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    blocks = [block for block in blocks if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), blocks
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one choice, of either API."""
    found = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                found += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
    return found


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response; checks its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return error
