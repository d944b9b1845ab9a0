"""White space around values."""

from __future__ import annotations

from typing import Any

import pytest

from support.references.json_walk import refusal, takes

WRITTEN = ['{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,2]}', '{\n  "a": 1,\n  "b": [\n    1,\n    2\n  ]\n}']
BADLY = ['{"a" : 1, "b": [1]}', '{"a": 1 , "b": [1]}', '{"a":  1, "b": [1]}', '{\n\n"a": 1, "b": [1]}']

BADLY += ['{"a"\n: 1, "b": [1]}', '{"a": 1\n, "b": [1]}', '{"a":\n1, "b": [1]}', '{"a": 1, "b": [1]} ']
AB = {"properties": {"a": {"type": "integer"}, "b": {"items": {"type": "integer"}}}, "required": ["a", "b"]}


def test_white_space_appears_only_where_json_writers_put_it() -> None:
    for text in WRITTEN:
        assert takes(AB, text, close=True), text
    for text in BADLY:
        assert not takes(AB, text, close=True), text
    assert not takes(AB, WRITTEN[2].replace("\n  ", "\n" + 21 * " "), close=True)


def test_white_space_follows_the_options() -> None:
    def with_options(**options: Any) -> dict[str, Any]:
        return {**AB, "x-guidance": options}

    compact = with_options(whitespace_flexible=False)
    assert takes(compact, WRITTEN[1], close=True)
    assert not any(takes(compact, text, close=True) for text in (WRITTEN[0], WRITTEN[2], *BADLY))
    one_line = with_options(whitespace_flexible=False, item_separator=", ", key_separator=": ")
    assert takes(one_line, WRITTEN[0], close=True)
    assert not takes(one_line, WRITTEN[1], close=True)
    anywhere = with_options(whitespace_pattern=r"[ \n]{1,30}")
    assert all(takes(anywhere, text, close=True) for text in [*WRITTEN, *BADLY[:-1]])
    assert takes(with_options(whitespace_flexible=True), BADLY[0], close=True)


FREE = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    "options",
    [
        {"item_separator": ";"},
        {"key_separator": " ?[:=]"},
        {"whitespace_pattern": "[ x]"},
        {"item_separator": ",?"},
    ],
)
def test_non_json_separators_beside_free_names_are_refused(options: dict[str, Any]) -> None:
    for schema in (FREE, {"type": "array", "items": FREE}, {}):
        assert "separators and white space that JSON does not have" in refusal(
            {**schema, "x-guidance": options}
        )
    assert takes({**AB, "x-guidance": {"closed": True, "item_separator": ";"}}, '{"a": 1;"b": []}')


@pytest.mark.parametrize(
    ("options", "comma"),
    [
        ({"item_separator": ", "}, ", "),
        ({"whitespace_pattern": r"[ \n]{1,3}"}, " ,\n"),
        ({"item_separator": r"\n?,"}, "\n,"),
    ],
)
def test_json_separators_beside_free_names_are_accepted(options: dict[str, Any], comma: str) -> None:
    schema = {**FREE, "x-guidance": options}
    assert takes(schema, '{"a": 1' + comma + '"b": 2}')
    assert not takes(schema, '{"a": 1' + comma + '"a": 2}')
