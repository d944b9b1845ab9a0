"""Calls of llama-server's own routes."""

from __future__ import annotations

import json
from typing import Any

from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

PATH = "/completion"
# The fields of an event before the last, and of the last or a whole answer.
FIRST = {"index", "content", "tokens", "stop", "id_slot", "tokens_predicted", "tokens_evaluated"}
LAST = FIRST | {
    "model",
    "generation_settings",
    "prompt",
    "has_new_line",
    "truncated",
    "stop_type",
    "stopping_word",
    "tokens_cached",
    "timings",
}


async def ask(body: dict[str, Any], engine: FakeEngine | None = None, **settings: Any) -> Any:
    """The answer to a request."""
    if engine is not None:
        engine.state = "ready"  # it may have been used before
    async with client(make_app(engine, **settings)) as http:
        response = await http.post(PATH, json=body)
        assert response.status_code == 200, response.text
        return response.json()


async def refused(body: dict[str, Any], param: str, engine: FakeEngine | None = None) -> str:
    """The message of a 400 that names `param`."""
    async with client(engine) as http:
        error = error_of(await http.post(PATH, json=body), 400)
    assert error["param"] == param, error
    return error["message"]


def events(text: str) -> list[dict[str, Any]]:
    """No [DONE] here."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def stream(body: dict[str, Any], engine: FakeEngine | None = None) -> list[dict[str, Any]]:
    """The events of a streamed answer."""
    async with client(engine) as http:
        response = await http.post(PATH, json={**body, "stream": True})
        assert response.headers["content-type"].startswith("text/event-stream")
        return events(response.text)
