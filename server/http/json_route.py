"""The route class that reads bodies with a strict JSON reader."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic.fields import FieldInfo

from engine.exact_json import read_float
from server.errors import ApiError, bad_request
from server.generation.request_context import PendingModel
from server.http.loading import handle_when_loaded
from server.http.route import Route

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_decoder = msgspec.json.Decoder(float_hook=read_float)


def read_json(body: bytes) -> Any:
    """The value of a JSON text: UTF-8 only, no NaN, no lone surrogates, no excessive nesting.

    A leading byte-order mark is ignored, as RFC 8259 allows. A decimal that no double equals becomes an
    ExactFloat.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError:
        raise bad_request("the body is not valid UTF-8", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None
    except msgspec.DecodeError as error:
        reason = _reason(body, str(error))
        raise bad_request(f"the body is not valid JSON: {reason}", code="invalid_json") from None


def _reason(body: bytes, message: str) -> str:
    """The reader's message, or a better one where it wrongly calls a text truncated."""
    if not body.strip():
        return "it is empty"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is in UTF-16; send UTF-8"
    place = _lone_surrogate(body) if "truncated" in message or "surrogate" in message else None
    if place is None:
        return message
    escape = body[place : place + 6].decode()
    return f"{escape} (byte {place}) is a lone surrogate, which is only half of a character"


def _lone_surrogate(body: bytes) -> int | None:
    """The position of the first escaped surrogate without its other half."""
    high: int | None = None  # where a pair begins, if one does
    for escape in _ESCAPE.finditer(body):
        code = int(escape[1] or b"0", 16)
        if high is not None and (escape.start() != high + 6 or not 0xDC00 <= code < 0xE000):
            return high
        if 0xDC00 <= code < 0xE000 and high is None:
            return escape.start()
        high = escape.start() if 0xD800 <= code < 0xDC00 else None
    return None if high is None or high + 6 == len(body) else high  # cut off after its first half


def check_content_type(header: str) -> None:
    """Accept only JSON, for which browsers ask first, so that other origins' pages cannot post here."""
    kind, _, parameters = header.lower().partition(";")
    if not _is_json(kind):
        message = "send the body as JSON, with the header 'Content-Type: application/json'"
        raise ApiError(415, message, code="unsupported_media_type")
    if parameters.partition("charset=")[2].strip(' "') not in ("", "utf-8", "utf8", "us-ascii"):
        raise ApiError(415, "JSON is taken in UTF-8 only", code="unsupported_media_type")


def _is_json(kind: str) -> bool:
    kind = kind.strip()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Refuse requests from pages of other servers, unless `allowed` (--cors-origins) has them."""
    own = request.headers.get("host", "").lower()
    for origin in request.headers.getlist("origin"):
        host = origin.lower().partition("://")[2]
        if not (host and host == own) and origin not in allowed and "*" not in allowed:
            message = f"pages of {origin[:200]!r} may call this server only with --cors-origins"
            raise ApiError(403, message, code="origin_not_allowed")


class JsonRequest(Request):
    _value: Any = None

    async def json(self) -> Any:
        if self._value is None:
            self._value = read_json(await self.body())
        return self._value


class JsonRoute(Route):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request = self.json_request(request)
            try:
                return await handler(request)
            except PendingModel as pending:
                fields = self._fields
                body = await request.json() if fields else {}
                stream = body.get("stream", fields["stream"].default) if "stream" in fields else False
                return await handle_when_loaded(
                    request,
                    pending,
                    handler,
                    streams=bool(stream),
                    timeout_ms=body.get("timeout_ms") if "timeout_ms" in fields else None,
                )

        return handle

    @cached_property
    def _fields(self) -> dict[str, FieldInfo]:
        """The fields of the body, if it is an object."""
        schema = self.body_field.field_info.annotation if self.body_field is not None else None
        return getattr(schema, "model_fields", {})

    def json_request(self, request: Request) -> JsonRequest:
        check_content_type(request.headers.get("content-type", ""))
        return JsonRequest(request.scope, request.receive)


class AnyTypeRoute(JsonRoute):
    """Accepts JSON under any content type, as `curl -d` sends it; from other origins only as
    application/json.
    """

    def json_request(self, request: Request) -> JsonRequest:
        if _is_json(request.headers.get("content-type", "").lower().partition(";")[0]):
            return super().json_request(request)
        check_origin(request, request.app.state.ggserve.settings.cors_origins)
        headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
        scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
        return JsonRequest(scope, request.receive)


def json_router(route_class: type[JsonRoute] = JsonRoute) -> APIRouter:
    return APIRouter(route_class=route_class)
