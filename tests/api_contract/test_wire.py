"""What only a connection shows, against uvicorn with our protocol: framing, heads, bodies without end."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from server.http.protocol import LimitedProtocol, limited_protocol
from support.fakes.engine import FakeEngine, make_app, serving, settings

LIMITS = {"max_body_bytes": 10_000, "body_timeout_s": 0.3, "header_timeout_s": 0.3}
BODY = b'{"prompt": "Once"}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
SECOND = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def base(engine: FakeEngine) -> Iterator[str]:
    protocol = limited_protocol(settings(**LIMITS), LimitedProtocol)
    with serving(make_app(engine, **LIMITS), http=protocol, server_header=False, ws="none") as base_url:
        yield base_url


def talk(base: str, data: bytes, *, half_close: bool = False) -> bytes:
    """Raw bytes to the server; everything that it answers until it closes."""
    host, port = base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                received += part
        return received


def statuses(answer: bytes) -> list[int]:
    return [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def error_of(answer: bytes) -> dict[str, str]:
    """The error of the only response; checks its head and shape."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert len(statuses(answer)) == 1, answer
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/json" in lines
    assert b"content-length: %d" % len(body) in lines
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


GOOD = {
    "with a length": POST + JSON + LENGTH + CLOSE + b"\r\n" + BODY,
    "in chunks": POST + JSON + CHUNKED + CLOSE + b"\r\n" + CHUNKS,
    "chunks with extensions and trailers": POST + JSON + CHUNKED + CLOSE + b"\r\n"
    b"%x;a=b\r\n%b\r\n0\r\nx-y: z\r\n\r\n" % (len(BODY), BODY),
    "the whole address": POST.replace(b"/v1", b"http://localhost/v1")
    + JSON
    + LENGTH
    + CLOSE
    + b"\r\n"
    + BODY,
    "HTTP 1.0": POST.replace(b"1.1", b"1.0") + JSON + LENGTH + b"\r\n" + BODY,
}


@pytest.mark.parametrize("kind", GOOD)
def test_valid_request_is_answered(kind: str, base: str) -> None:
    assert statuses(talk(base, GOOD[kind])) == [200]


def post(*lines: bytes, body: bytes = BODY) -> bytes:
    return POST + b"".join(lines) + b"\r\n" + body


BAD = {
    "no content type": (post(LENGTH, CLOSE), 415, "unsupported_media_type"),
    "an empty one": (post(b"Content-Type:\r\n", LENGTH, CLOSE), 415, "unsupported_media_type"),
    "a form": (post(b"Content-Type: text/plain\r\n", LENGTH, CLOSE), 415, "unsupported_media_type"),
    "gzip": (post(JSON, LENGTH, b"Content-Encoding: gzip\r\n"), 415, "unsupported_encoding"),
    "gzip in transfer": (
        post(JSON, b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS),
        415,
        "unsupported_encoding",
    ),
    "an unknown coding": (post(JSON, b"Transfer-Encoding: xchunked\r\n", body=CHUNKS), 400, "invalid_http"),
    "chunked, twice": (post(JSON, b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS), 400, None),
    "chunked, but not at last": (post(JSON, b"Transfer-Encoding: chunked, gzip\r\n", body=CHUNKS), 400, None),
    "both lengths": (post(JSON, LENGTH, CHUNKED, body=CHUNKS), 400, None),
    "both the other way round": (post(JSON, CHUNKED, LENGTH, body=CHUNKS), 400, None),
    "two lengths": (post(JSON, LENGTH, b"Content-Length: 5\r\n"), 400, None),
    "a list of lengths": (post(JSON, b"Content-Length: 18, 5\r\n"), 400, None),
    "a negative length": (post(JSON, b"Content-Length: -1\r\n"), 400, None),
    "no number": (post(JSON, b"Content-Length: 1e3\r\n"), 400, None),
    "a signed one": (post(JSON, b"Content-Length: +18\r\n"), 400, None),
    "an absurd one": (post(JSON, b"Content-Length: %b\r\n" % (b"9" * 40)), 400, None),
    "a great one": (post(JSON, b"Content-Length: 999999999999\r\n"), 413, "body_too_large"),
    "a body that stops": (post(JSON, b"Content-Length: 50\r\n", body=b"{"), 408, "body_timeout"),
    "chunks that stop": (post(JSON, CHUNKED, body=b"5\r\n{"), 408, "body_timeout"),
    "chunks without end": (
        post(JSON, CHUNKED, body=(b"1000\r\n" + b" " * 4096 + b"\r\n") * 4),
        413,
        "body_too_large",
    ),
    "a chunk without end": (post(JSON, CHUNKED, body=b"7fffffff\r\n" + b" " * 20_000), 413, "body_too_large"),
    "a chunk of no size": (post(JSON, CHUNKED, body=b"z\r\n{}\r\n0\r\n\r\n"), 400, None),
    "a chunk of too great a size": (post(JSON, CHUNKED, body=b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"), 400, None),
    "a chunk longer than it says": (post(JSON, CHUNKED, body=b"2\r\n{}}\r\n0\r\n\r\n"), 400, None),
    "no host": (
        POST.replace(b"Host: localhost\r\n", b"") + JSON + LENGTH + b"\r\n" + BODY,
        403,
        "host_not_allowed",
    ),
    "two hosts": (post(b"Host: evil.example\r\n", JSON, LENGTH), 400, None),
    "another host": (POST.replace(b"localhost", b"evil.example") + JSON + LENGTH + b"\r\n" + BODY, 403, None),
    "a field of 1 MB": (post(JSON, LENGTH, b"x: %b\r\n" % (b"a" * 1_000_000)), 431, "headers_too_large"),
    "a path of 1 MB": (b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 1_000_000), 431, None),
    "10 000 fields": (post(JSON, LENGTH, b"x: y\r\n" * 10_000), 431, "headers_too_large"),
    "a head that stops": (POST + JSON, 408, "header_timeout"),
    "a field without a name": (post(b": x\r\n", JSON, LENGTH), 400, "invalid_http"),
    "a name with a blank": (post(b"Content-Length : 5\r\n", JSON), 400, "invalid_http"),
    "a NUL in a field": (post(b"x: a\0b\r\n", JSON, LENGTH), 400, "invalid_http"),
    "a line feed in a name": (post(b"a\nb: c\r\n", JSON, LENGTH), 400, "invalid_http"),
    "a blank in the path": (b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
    "HTTP 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    "HTTP 9": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
    "a greeting": (b"hello\r\n\r\n", 400, "invalid_http"),
    "no path": (b"GET  HTTP/1.1\r\n\r\n", 400, "invalid_http"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400, "invalid_http"),
    "another method": (b"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
    "CONNECT": (
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        400,
        None,
    ),
    "a folder up": (
        b"GET /x/../v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        404,
        None,
    ),
    "two slashes": (b"GET //v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, None),
}


@pytest.mark.parametrize("kind", BAD)
def test_invalid_request_is_refused(kind: str, base: str, engine: FakeEngine) -> None:
    """In the shape of the API; what follows on the connection is not taken for another request."""
    data, status, code = BAD[kind]
    before = len(engine.seen)
    ends = status in (400, 403, 415) and b"close" not in data.lower()
    answer = talk(base, data + SECOND if ends else data)
    assert statuses(answer) == [status], answer
    error = error_of(answer)
    assert code is None or error["code"] == code
    assert len(engine.seen) == before
    assert statuses(talk(base, SECOND)) == [200]


def test_consecutive_requests_on_a_connection_are_answered(base: str, engine: FakeEngine) -> None:
    """A body that was refused is read to its end, or the connection closed: never a part of it answered."""
    inside = b'{"prompt": ' + SECOND + b"}"
    for bad in (
        post(b"Content-Type: text/plain\r\n", b"Content-Length: %d\r\n" % len(inside), body=inside),
        post(JSON, b"Content-Length: %d\r\n" % len(inside), body=inside),
    ):
        codes = statuses(talk(base, bad + SECOND))
        assert codes[0] in (400, 415)
        assert codes[1:] in ([], [200])
    assert statuses(talk(base, GOOD["with a length"].replace(CLOSE, b"") + SECOND)) == [200, 200]


def test_half_closed_client_with_an_incomplete_body_gets_nothing(base: str) -> None:
    assert talk(base, post(JSON, b"Content-Length: 50\r\n", body=b"{"), half_close=True) == b""
    assert talk(base, POST, half_close=True) in (b"",)
