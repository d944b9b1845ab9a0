"""Calls of the application without a socket, and reading of event streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from support.fakes.engine import FakeEngine, make_app
from support.waiting import until

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
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url=f"http://{host}", **options
        ) as http_client,
    ):
        yield http_client


class Live:
    """One streamed request without a socket, whose bytes can be seen as they come."""

    def __init__(self, app: Any, path: str, body: dict[str, Any]) -> None:
        self.status = 0
        self.sent = b""
        self._body = json.dumps(body).encode()
        self._gone = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.sent += message.get("body", b"")

    async def until(self, text: str) -> None:
        """Wait until the response holds `text`."""
        await until(lambda: text.encode() in self.sent)

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    async def finish(self) -> str:
        await self.task
        return self.sent.decode()


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
    content = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                content += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
    return content


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response; checks its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    names = {"message", "type", "param", "code"}
    if error["code"] == "context_length_exceeded" and error["type"] == "exceed_context_size_error":
        names |= {"n_prompt_tokens", "n_ctx"}
    assert set(error) == names
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return error
