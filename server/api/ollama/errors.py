"""Errors in Ollama's shape."""

from __future__ import annotations

from typing import Any

from server.api.common.replies.errors import message_with_field
from server.api.common.requests.generation_fields import SequenceFields
from server.errors import ApiError, ErrorFormat, UnknownModel


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """A text only, which begins with the field at fault. Clients look for the words about unknown models."""
    if isinstance(error, UnknownModel):
        return {"error": f"model '{error.model[:200]}' not found"}
    place = "options." if error.param in SequenceFields.model_fields else ""
    return {"error": place + message_with_field(error)}


ERRORS = ErrorFormat(error_body, prefix="/api/")
