"""Calls of /v1/responses."""

from __future__ import annotations

from support.api.http import client
from support.api.named_events import named_events

RESPONSES = "/v1/responses"
TOOL = {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}}
CALL = '{"tool_calls": [{"name": "find", "arguments": {"a": 1}}, {"name": "find", "arguments": {}}]}'
PLAIN = ["response.created", "response.in_progress", "response.output_item.added"]
PLAIN += ["response.content_part.added", "response.output_text.delta", "response.output_text.done"]
PLAIN += ["response.content_part.done", "response.output_item.done", "response.completed"]


async def create(app, **body):
    async with client(app) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def stream(app, **body):
    async with client(app) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", "stream": True, **body})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return named_events(response.text)
