"""Request errors as exceptions with an HTTP status; each API formats them in its own JSON shape.

Messages say what to do and never contain a path, an address or a traceback; the log has the details under the
request's id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    499: "request_cancelled",
    503: "service_unavailable",
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PHRASES = {404: "no such route", 405: "this route does not accept that method"}


NEVER = -1  # as `retry_after`: a retry cannot succeed


class ApiError(HTTPException):
    """An error with an HTTP status. `param` names the field at fault, `code` is for programs.

    retry_after: seconds after which a retry may succeed, or NEVER; None: unknown.
    """

    type: str = ""  # the kind of error, where the status does not say it

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        headers = dict(headers or {})
        if retry_after is not None:
            headers["x-should-retry"] = "false" if retry_after == NEVER else "true"
            if retry_after != NEVER:
                headers["retry-after"] = str(retry_after)
        super().__init__(status, message, headers or None)
        self.message, self.param, self.code = message, param, code
        self.details: dict[str, Any] = {}  # further fields of the error object
        if not self.type:
            self.type = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")

    def response(self, scope: Scope) -> JSONResponse:
        """The error response, in the format of the API to which the request's path belongs."""
        body = error_format(scope).body(self, scope["ggserve.record"].id)
        return JSONResponse(body, self.status_code, headers=self.headers)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\ndata: [DONE]\n\n"


@dataclass(frozen=True)
class StreamFormat:
    """How one API formats a stream that has not begun its answer: a comment, and an error that ends it."""

    media_type: bytes = b"text/event-stream; charset=utf-8"
    keep_alive: Callable[[str], bytes] = lambda text: f": keep-alive, {text}\n\n".encode()
    error: Callable[[dict[str, Any]], bytes] = _event


@dataclass(frozen=True)
class ErrorFormat:
    """How one API formats its errors, for the paths that begin with `prefix`.

    body: takes the error and the request's id. id_header: a response header for that id, in addition to
    x-request-id.
    """

    body: Callable[[ApiError, str], dict[str, Any]]
    prefix: str = ""
    id_header: bytes | None = None
    stream: StreamFormat = StreamFormat()

    def handles(self, path: str) -> bool:
        return path.startswith(self.prefix)


def error_format(scope: Scope) -> ErrorFormat:
    """The format of the API to which the path belongs. `app.state.error_formats` is sorted by prefix, longest
    first.
    """
    formats: Sequence[ErrorFormat] = scope["app"].state.error_formats
    return next(format for format in formats if format.handles(scope["path"]))


CLIENT_TOO_SLOW = "client_too_slow"  # in the log: it was disconnected because it did not read


class ClientLeft(ApiError):
    """The client closed its connection. Nobody reads this error; the log shows status 499."""

    def __init__(self) -> None:
        super().__init__(499, "the client closed the connection", code="client_left")


class ContextExceeded(ApiError):
    """The type and the numbers are where llama-server's clients look for them, the code where OpenAI's do."""

    type = "exceed_context_size_error"

    def __init__(self, message: str, param: str, n_prompt: int, n_ctx: int) -> None:
        super().__init__(400, message, param=param, code="context_length_exceeded")
        self.details = {"n_prompt_tokens": n_prompt, "n_ctx": n_ctx}


class NotSupported(ApiError):
    """The model or the server's configuration lacks something that the request needs."""

    type = "not_supported_error"


class UnknownModel(ApiError):
    """No model of this name is served."""

    type = "invalid_request_error"

    def __init__(self, message: str, model: str) -> None:
        super().__init__(404, message, param="model", code="model_not_found")
        self.model = model


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def wrong(path: str, what: str) -> ApiError:
    """An error about an invalid field. path: of the field."""
    return bad_request(f"{path}: {what}", path, "invalid_value")


def missing(path: str) -> ApiError:
    return bad_request(f"{path}: is required", path, "missing_field")


def unsupported(path: str, what: str = "is not supported by this server") -> ApiError:
    return bad_request(f"{path}: {what}", path, "unsupported_value")


def internal_error(request_id: str, retry_after: int | None = None) -> ApiError:
    """An error of the server itself. The text only says where to look."""
    text = f"internal error (request {request_id}); the server's log has the details"
    return ApiError(500, text, code="internal_error", retry_after=retry_after)


def overloaded(model: str, retry_after_s: float) -> ApiError:
    message = f"the queue of model '{model}' is full; try again later"
    return ApiError(429, message, code="queue_full", retry_after=max(1, math.ceil(retry_after_s)))


def rate_limited(limit: str, retry_after_s: float, headers: Mapping[str, str] | None = None) -> ApiError:
    """limit: which limit of the API key was reached, in words."""
    message = f"the limit of this API key is reached ({limit}); try again later"
    retry = max(1, math.ceil(retry_after_s))
    return ApiError(429, message, code="rate_limit_exceeded", retry_after=retry, headers=headers)


def admin_required(headers: Mapping[str, str] | None = None) -> ApiError:
    message = "this needs an API key with the role admin"
    return ApiError(403, message, code="admin_required", headers=headers)


def path_of(location: Sequence[str | int]) -> str | None:
    """('body', 'messages', 0, 'role') → 'messages[0].role'. None: the body as a whole."""
    text = ""
    for part in location[1:] if location and location[0] in ("body", "path", "query") else location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:64]}" if text else part[:64]
    return text or None


def from_validation(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """Pydantic's errors about one field as ours: the first one, or all if the field has several possible
    types.
    """
    errors = errors[:64]
    paths = [_path_in(error, body) for error in errors]
    # Each kind that a field may have complains; the one that got furthest knows best.
    path = max((path for path in paths if path[:2] == paths[0][:2]), key=len)
    same = [error for error, other in zip(errors, paths, strict=True) if other == path]
    param, kind = path_of(path), same[0]["type"]
    if kind == "missing":
        message = "is required" if param else "the body must be a JSON object"
    elif kind in ("model_attributes_type", "model_type", "dict_type") and param is None:
        message = "the body must be a JSON object"
    else:
        message = ", or ".join(dict.fromkeys(_worded(error) for error in same))
    code = "missing_field" if kind == "missing" else "invalid_value"
    return bad_request(f"{param}: {message}" if param else message, param, code)


def _path_in(error: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:
    """The place of an error in the body, without pydantic's names for a field's possible types."""
    location = error["loc"]
    if not location or location[0] != "body" or not isinstance(body, dict | list):
        return tuple(location)
    path: list[str | int] = ["body"]
    value = body
    for i, part in enumerate(location[1:], 2):
        if isinstance(value, dict):
            known = part in value
        else:
            known = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if known:
            value = value[part]
        elif not (error["type"] == "missing" and i == len(location)):
            continue
        path.append(part)
    return tuple(path)


def _worded(error: Mapping[str, Any]) -> str:
    message = str(error["msg"])
    if error["type"] == "value_error":
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _methods(request: Request) -> list[str]:
    """The methods that a path accepts. They may be separate routes, of which the framework names only one."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.router.routes
    return [m for m in _METHODS if any(route.matches(scopes[m])[0] is Match.FULL for route in routes)]


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if not isinstance(error, ApiError):
        message = _PHRASES.get(error.status_code) or str(error.detail)
        code = {404: "unknown_route", 405: "method_not_allowed"}.get(error.status_code)
        headers = {"allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
        error = ApiError(error.status_code, message, code=code, headers=headers)
    return error.response(request.scope)


async def on_unavailable(request: Request, _error: Exception) -> JSONResponse:
    error = ApiError(
        503, "the model is not available at the moment", code="engine_unavailable", retry_after=2
    )
    return error.response(request.scope)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return from_validation(error.errors(), error.body).response(request.scope)
