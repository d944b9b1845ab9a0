"""The error shape of OpenAI's API, which llama-server's and our own routes share."""

from __future__ import annotations

from typing import Any

from server.errors import ApiError, ErrorFormat


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """As a whole response, or as an event of a stream."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": {**fields, **error.details}}


ERRORS = ErrorFormat(error_body)
