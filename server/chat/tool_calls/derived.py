"""JSON calls between markers that no file here knows: derived from a call that the template renders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from server.chat.tool_calls.json_calls import ARGUMENT_KEYS, NAME_KEYS, JsonSyntax, JsonToolCallFormat

NAME = "qq_tool"  # of the call that the template renders, with these arguments
ARGUMENTS = {"qq_argument": "qq_value"}
_MARKER = re.compile(r"\s*(\[/\w+\]|</[^<>\s]+>|<\|[^<>\s]+\|>)")


class DerivedFormat(JsonToolCallFormat):
    name = "derived"

    def __init__(self, syntax: JsonSyntax) -> None:
        self.syntax = syntax

    def detects(self, source: str) -> bool:
        return False


def derive_format(render: Callable[[bool], str | None]) -> DerivedFormat | None:
    """render: a prompt (False), and the same followed by an answer that calls a tool (True)."""
    prompt, whole = render(False), render(True)
    if prompt is None or whole is None:
        return None
    answer = whole[_common_length(prompt, whole) :]
    call = _find_call(answer)
    if call is None:
        return None
    start, end, name_key, arguments_key = call
    before, after = answer[:start], answer[end:]
    listed = before.rstrip().endswith("[") and after.lstrip().startswith("]")
    if listed:
        before, after = before.rstrip()[:-1], after.lstrip()[1:]
    opener = before.strip()
    if not opener:
        return None
    gap = before[len(before.rstrip()) :]
    closing = _MARKER.match(after)
    closer = closing[1] if closing is not None and _letters(closing[1]) == _letters(opener) else ""
    return DerivedFormat(
        JsonSyntax(opener, closer, gap, listed, name_key=name_key, arguments_key=arguments_key, between="\n")
    )


def _common_length(a: str, b: str) -> int:
    """The length of the common prefix of two texts, which does not end within a marker."""
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    opened = max(b.rfind("<", 0, i), b.rfind("[", 0, i))
    closed = max(b.rfind(">", 0, i), b.rfind("]", 0, i))
    return opened if opened > closed else i


def _find_call(text: str) -> tuple[int, int, str, str] | None:
    """Where the call begins and ends, and its keys of name and arguments."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        names = [key for key in NAME_KEYS if value.get(key) == NAME]
        arguments = [key for key in ARGUMENT_KEYS if value.get(key) == ARGUMENTS]
        if names and arguments:
            return match.start(), end, names[0], arguments[0]
    return None


def _letters(marker: str) -> str:
    return re.sub(r"\W", "", marker)
