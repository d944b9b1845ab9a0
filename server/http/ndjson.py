"""Streams of JSON lines (NDJSON)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

MEDIA_TYPE = b"application/x-ndjson"
# Clients split the text as Python's splitlines does, also at U+0085, U+2028 and U+2029. JSON may have these
# in strings only. msgspec escapes the other characters at which a line would end.
_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")
KEEP_ALIVE = b" "  # white space before the next value; readers take an empty line for a broken value


def json_line(value: Any) -> bytes:
    """`value` as one line, however a client finds the ends of lines."""
    data = msgspec.json.encode(value)
    return _LINE_ENDS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), data) + b"\n"
