"""Errors in Ollama's shape."""

from __future__ import annotations

from typing import Any

from server.api.common.replies.errors import message_with_field
from server.errors import ApiError, ErrorFormat, UnknownModel


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """A text only, which begins with the field at fault. Clients look for the words about unknown models."""
    return {"error": error.message if isinstance(error, UnknownModel) else message_with_field(error)}


ERRORS = ErrorFormat(error_body, prefix="/api/")
