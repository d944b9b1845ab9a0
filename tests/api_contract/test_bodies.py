"""Bodies that are no request, on every route: always a 4xx in one shape, never a trace of us."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from support.api.routes import POSTS, Ask, Route, asking, document, has_codes, kinds, refusal
from support.quick import every

LEAKS = re.compile(r"/root|/work|/opt|/home|\.py\b|Traceback|0x[0-9a-f]{6}|line \d+|pydantic|function-")

NO_OBJECTS = [b"", b"[]", b"null", b"5", b'"text"', b"true", b"[{}]", b"\x00", b"%7B%7D", b"a=b", b"{}{}"]
NO_JSON = [
    b'{"x": "y"',
    b'{"x": "y",}',
    b"{'x': 'y'}",
    b'{"x": NaN}',
    b'{"x": -Infinity}',
    b'{"x": 1e999}',
    b'{"x": 01}',
    b'{"x": ' * 10_000 + b"1" + b"}" * 10_000,
    b"[" * 10_000,
    b'{"x": "\xff\xfe"}',
    b'{"x": "\xed\xa0\x80"}',
    b'{"x": "\\ud800"}',
    b'{"x": "\\ud800 x"}',
    b'{"\\udfff": 1}',
    b'\xef\xbb\xbf\xef\xbb\xbf{"x": "y"}',
    b'{"x": "a\x00b"}',
    b'{"x": "a\nb"}',
]
ODD_TEXTS = [
    "a\0b",
    "a\u2028\r\n",
    "\0",
    "\ufeffa",
    "\u202ea",
    "\U0001f355",
    "\x7f\x1b[2J",
    "\ufdd0\uffff",
    "e\u0301" * 9,
]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking() as asker:
        yield asker


@pytest.mark.parametrize("route", POSTS, ids=str)
def test_body_that_is_not_a_request_is_refused(route: Route, ask: Ask) -> None:
    for content in NO_OBJECTS + NO_JSON:
        ask.forget()
        response = ask(route, content=content)
        if content in (b"", b"null") and not route.needs_body:
            assert response.status_code == 200
            continue
        error = refusal(response, route)
        assert error["type"] == "invalid_request_error"
        if has_codes(route):
            assert error["code"] == "invalid_json" or content in NO_OBJECTS
        assert not LEAKS.search(response.text), response.text
        assert ask.work == []
    if route.body():
        assert refusal(ask(route, {}), route)["message"].endswith("is required")


@pytest.mark.parametrize("route", every(9, POSTS), ids=str)
def test_unusual_valid_text_is_accepted(route: Route, ask: Ask) -> None:
    """In every field that takes text, and as a field's name: an answer, or a refusal that names the field."""
    for field in route.all_fields():
        if "string" not in (kinds(field.schema) or {"string"}):
            continue
        for text in ODD_TEXTS:
            response = ask(route, field.body(text))
            msg = response.content.decode()  # raises where it is no UTF-8
            if response.status_code != 200:
                assert field.top in refusal(response, route, 400, 404)["message"], (field.name, text, msg)
    for text in ODD_TEXTS:
        response = ask(route, {**route.body(), text: 1})
        assert response.status_code == 200
        json.loads(response.content.decode())


def test_body_with_duplicate_keys_uses_the_last_one(ask: Ask) -> None:
    ask.forget()
    response = ask(POSTS[0], content=b'{"prompt": 5, "prompt": "the last one counts"}')
    assert response.status_code == 200
    assert ask.engine.tokenizer.decode(ask.engine.seen[0].prompt[1:]).strip() == "the last one counts"


def test_absent_field_is_the_same_as_null(ask: Ask) -> None:
    for route in POSTS:
        nothing = {name: None for name in route.fields if name not in route.body()}
        assert ask(route, {**nothing, **route.body()}).status_code == 200, str(route)


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")


@pytest.mark.parametrize("path", document()["paths"])
def test_unsupported_method_gets_405_with_the_allowed_ones(path: str, ask: Ask) -> None:
    url = re.sub(r"{\w+}", "x", path)
    accepted = {
        method.upper()
        for other, item in document()["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), url)
        for method in item
    }
    for method in METHODS:
        if method not in accepted:
            response = ask.request(method, url, json={})
            refusal(response, path, 405)
            assert accepted <= set(response.headers["allow"].split(", ")) <= {*accepted, "HEAD"}


@pytest.mark.parametrize("route", POSTS, ids=str)
def test_path_with_other_spelling_is_not_found(route: Route, ask: Ask) -> None:
    path = route.url.partition("?")[0]
    for wrong in (
        f"{path}/",
        f"/{path}",
        f"{path}%00",
        f"{path}%2f",
        path.upper(),
        f"/x{path}",
        f"/%2e{path}",
    ):
        response = ask.request("POST", httpx.URL("http://localhost", raw_path=wrong.encode()), json={})
        refusal(response, wrong.replace("%2f", "/"), 404, 405, *([400] if "{" in route.path else []))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "//v1/models",
        "/%2e%2e/etc/passwd",
        "/../etc/passwd",
        "/static/..%2f..%2fetc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/models/%ff%fe",
        "/v1//models",
        "/" + "a/" * 2000,
    ],
)
def test_unknown_path_is_not_found(path: str, ask: Ask) -> None:
    response = ask.request("GET", httpx.URL("http://localhost", raw_path=path.encode()))
    refusal(response, path, 404)
    assert not LEAKS.search(response.text)
