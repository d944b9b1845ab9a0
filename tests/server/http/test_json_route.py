"""Which bodies and content types a JSON route reads."""

from __future__ import annotations

import pytest

from server.errors import ApiError
from server.http.json_route import check_content_type, read_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ("é".join('""').encode(), "é"),
        (b"1", 1),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),  # a byte-order mark, as editors and PowerShell write it
        (b'"\\ud83d\\ude00\\\\ud800"', "😀\\ud800"),
    ],
)
def test_read_json_of_a_valid_text_returns_its_value(body: bytes, value: object) -> None:
    assert read_json(body) == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON: it is empty"),
        (b"\xef\xbb\xbf", "not valid JSON: it is empty"),
        ('{"a": 1}'.encode("utf-16"), "it is in UTF-16; send UTF-8"),
        (b'{"a": "b', "truncated"),
        (b'{"a": "\\ud83d', "truncated"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'"\\ud800"', r"not valid JSON: \\ud800 \(byte 1\) is a lone surrogate"),
        (b'{"\\uDBFF": 1}', r"\\uDBFF \(byte 2\) is a lone surrogate"),
        (b'["\\ud83d\\ude00", "\\udc00 and more text"]', r"\\udc00 \(byte 18\) is a lone surrogate"),
        (b'["\\ud83d\\ud83d\\ude00"]', r"\(byte 2\) is a lone surrogate"),
        (b'["\\\\ud800\\ud801\\u0041 and more text"]', r"\\ud801 \(byte 9\) is a lone surrogate"),
        (b'"\xff"', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_read_json_of_an_invalid_text_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        read_json(body)
    assert (caught.value.status_code, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/vnd.api+json",
    ],
)
def test_content_type_of_json_is_accepted(header: str) -> None:
    check_content_type(header)


@pytest.mark.parametrize(
    "header", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_content_type_of_anything_else_is_refused(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_content_type(header)
    assert (caught.value.status_code, caught.value.code) == (415, "unsupported_media_type")
