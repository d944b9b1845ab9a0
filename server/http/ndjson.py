"""Streams of JSON lines (NDJSON)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from server.errors import ApiError, StreamFormat
from server.http.json_reply import Bytes
from server.http.sse import while_connected

ErrorBody = Callable[[ApiError], Any]
MEDIA_TYPE = b"application/x-ndjson"
# Clients split the text as Python's splitlines does, also at U+0085, U+2028 and U+2029. JSON may have these
# in strings only. msgspec escapes the other characters at which a line would end.
_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")
KEEP_ALIVE = b" "  # white space before the next value; readers take an empty line for a broken value


def json_line(value: Any) -> bytes:
    """`value` as one line, for any definition of line breaks that a client may use."""
    data = msgspec.json.encode(value)
    return _LINE_ENDS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), data) + b"\n"


STREAM = StreamFormat(MEDIA_TYPE, lambda text: KEEP_ALIVE, json_line)


async def respond(
    request: Request, values: AsyncGenerator[Any, None], error_body: ErrorBody, *, stream: bool
) -> Response:
    """Respond with the values as lines, the first awaited before the status line, or with only the last
    value.
    """
    first = await while_connected(request.receive, anext(values))
    if stream:
        return StreamingResponse(_lines(first, values, error_body), media_type=MEDIA_TYPE.decode())
    return Bytes(msgspec.json.encode(await while_connected(request.receive, _last(first, values))))


async def _lines(
    first: Any, values: AsyncGenerator[Any, None], error_body: ErrorBody
) -> AsyncIterator[bytes]:
    """The lines; an error becomes the last one."""
    yield json_line(first)
    try:
        async with aclosing(values):
            async for value in values:
                yield json_line(value)
    except ApiError as error:
        yield json_line(error_body(error))


async def _last(first: Any, values: AsyncGenerator[Any, None]) -> Any:
    last = first
    async with aclosing(values):
        async for value in values:
            last = value
    return last
