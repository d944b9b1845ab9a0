"""White space around values."""

from __future__ import annotations

from typing import Any

from support.references.json_walk import takes

WRITTEN = ['{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,2]}', '{\n  "a": 1,\n  "b": [\n    1,\n    2\n  ]\n}']
BADLY = ['{"a" : 1, "b": [1]}', '{"a": 1 , "b": [1]}', '{"a":  1, "b": [1]}', '{\n\n"a": 1, "b": [1]}']

BADLY += ['{"a"\n: 1, "b": [1]}', '{"a": 1\n, "b": [1]}', '{"a":\n1, "b": [1]}', '{"a": 1, "b": [1]} ']
AB = {"properties": {"a": {"type": "integer"}, "b": {"items": {"type": "integer"}}}, "required": ["a", "b"]}


def test_white_space_stands_where_writers_put_it() -> None:
    for text in WRITTEN:
        assert takes(AB, text, close=True), text
    for text in BADLY:
        assert not takes(AB, text, close=True), text
    assert not takes(AB, WRITTEN[2].replace("\n  ", "\n" + 21 * " "), close=True)


def test_white_space_by_options() -> None:
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
