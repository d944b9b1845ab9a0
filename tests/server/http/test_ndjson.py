"""Lines of JSON, as clients of several languages find them."""

from __future__ import annotations

import json

import msgspec
import pytest

from server.http.ndjson import KEEP_ALIVE, json_line

ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines ends a line


@pytest.mark.parametrize("end", ENDS, ids=ascii)
def test_line_break_in_a_text_stays_within_one_line(end: str) -> None:
    assert f"a{end}b".splitlines() == ["a", "b"]
    line = json_line({"text": f"ä🍕{end}\\u2028", end: 1, "raw": msgspec.Raw(json.dumps(f"x{end}").encode())})
    assert line.endswith(b"\n")
    (only,) = line.decode().splitlines()
    assert json.loads(only) == {"text": f"ä🍕{end}\\u2028", end: 1, "raw": f"x{end}"}


def test_keep_alive_before_a_line_is_part_of_it() -> None:
    (only,) = (KEEP_ALIVE * 3 + json_line({"done": True})).decode().splitlines()
    assert json.loads(only) == {"done": True}
