"""Calls of /v1/messages."""

from __future__ import annotations

from support.api.http import client, user
from support.api.named_events import named_events
from support.api.routes import refusal as checked_refusal

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
TOOL = {"name": "find", "input_schema": {"type": "object", "properties": {}}}
CALL = '{"tool_calls": [{"name": "find", "arguments": {"a": 1}}, {"name": "find", "arguments": {}}]}'
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def request(**body):
    return {"messages": user("A cat"), "max_tokens": 200, **body}


async def create(app, **body):
    async with client(app) as http:
        response = await http.post(MESSAGES, json=request(**body))
    assert response.status_code == 200, response.text
    return response.json()


async def stream(app, **body):
    async with client(app) as http:
        response = await http.post(MESSAGES, json=request(stream=True, **body))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return named_events(response.text)


def refusal(response, status):
    """The type and message of an error, whose shape is checked."""
    error = checked_refusal(response, MESSAGES, status)
    return error["type"], error["message"]
