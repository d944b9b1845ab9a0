"""JSON responses."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from server.generation.request_context import RequestContext


class Bytes(Response):
    """A JSON response that is already encoded."""

    media_type = "application/json"


def json_reply(reply: dict[str, Any], context: RequestContext) -> Bytes:
    """A JSON object, with the request's warnings if there are any."""
    return Bytes(msgspec.json.encode(context.with_warnings(reply)))
