"""Errors in Anthropic's shape."""

from __future__ import annotations

from typing import Any

from server.api.common.replies.content_blocks import named_event
from server.api.common.replies.errors import message_with_field
from server.errors import ApiError, ContextExceeded, ErrorFormat, StreamFormat

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
}


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """The error body. The message begins with the field at fault, since the shape has no place for it."""
    type = _TYPES.get(error.status_code, "invalid_request_error")
    if error.status_code == 503:  # overloaded only where a retry can help
        retry = (error.headers or {}).get("x-should-retry")
        type = "overloaded_error" if retry == "true" else "api_error"
    if isinstance(error, ContextExceeded):  # clients that compact a conversation look for these words
        n_prompt, n_ctx = error.details["n_prompt_tokens"], error.details["n_ctx"]
        body: dict[str, Any] = {
            "type": type,
            "message": f"prompt is too long: {n_prompt} tokens > {n_ctx - 1} maximum",
        }
    else:
        body = {"type": type, "message": message_with_field(error)}
        if error.details:
            body["details"] = error.details
    return {"type": "error", "error": body, "request_id": request_id}


def _event(body: dict[str, Any]) -> bytes:
    return named_event(body.pop("type"), **body)


_STREAM = StreamFormat(error=_event)
ERRORS = ErrorFormat(error_body, prefix="/v1/messages", id_header=b"request-id", stream=_STREAM)
