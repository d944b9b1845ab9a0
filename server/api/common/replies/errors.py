"""The error format of OpenAI's API, which llama-server's routes and our own share."""

from __future__ import annotations

from typing import Any

from server.errors import ApiError, ErrorFormat


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """The error as a response body or as the data of an event."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": {**fields, **error.details}}


def message_with_field(error: ApiError) -> str:
    """The message, prefixed with the field at fault, for formats that have no place for the field."""
    if error.param is None or error.message.startswith(f"{error.param}:"):
        return error.message
    return f"{error.param}: {error.message.removeprefix(f'{error.param} ')}"


ERRORS = ErrorFormat(error_body)
