"""The error shape of OpenAI's API, which llama-server's and our own routes share."""

from __future__ import annotations

from typing import Any

from server.errors import ApiError, ErrorFormat


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """As a whole response, or as an event of a stream."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": {**fields, **error.details}}


def message_with_field(error: ApiError) -> str:
    """The message, which begins with the field at fault: for shapes that have no place for it."""
    if error.param is None or error.message.startswith(f"{error.param}:"):
        return error.message
    return f"{error.param}: {error.message.removeprefix(f'{error.param} ')}"


ERRORS = ErrorFormat(error_body)
