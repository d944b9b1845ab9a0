"""JSON calls between marks that no file here names: read off a call that the template itself writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from server.chat.tool_calls.json_calls import ARGUMENT_KEYS, NAME_KEYS, JsonSyntax, JsonToolCallFormat

NAME = "qq_tool"  # of the call that the template is to write, with these arguments
ARGUMENTS = {"qq_argument": "qq_value"}
_MARK = re.compile(r"\s*(\[/\w+\]|</[^<>\s]+>|<\|[^<>\s]+\|>)")


class DerivedFormat(JsonToolCallFormat):
    name = "derived"

    def __init__(self, syntax: JsonSyntax) -> None:
        self.syntax = syntax

    def detects(self, source: str) -> bool:
        return False


def derive_format(render: Callable[[bool], str | None]) -> DerivedFormat | None:
    """`render`: the prompt (False), and the same with the answer that is a call (True)."""
    prompt, whole = render(False), render(True)
    if prompt is None or whole is None:
        return None
    answer = whole[_common(prompt, whole) :]
    found = _call_in(answer)
    if found is None:
        return None
    start, end, name_key, arguments_key = found
    before, behind = answer[:start], answer[end:]
    listed = before.rstrip().endswith("[") and behind.lstrip().startswith("]")
    if listed:
        before, behind = before.rstrip()[:-1], behind.lstrip()[1:]
    opener = before.strip()
    if not opener:
        return None
    gap = before[len(before.rstrip()) :]
    closing = _MARK.match(behind)
    closer = closing[1] if closing is not None and _word(closing[1]) == _word(opener) else ""
    return DerivedFormat(
        JsonSyntax(opener, closer, gap, listed, name_key=name_key, arguments_key=arguments_key, between="\n")
    )


def _common(a: str, b: str) -> int:
    """Where two texts part, but not within a mark."""
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    opened = max(b.rfind("<", 0, i), b.rfind("[", 0, i))
    forbid_additional_properties = max(b.rfind(">", 0, i), b.rfind("]", 0, i))
    return opened if opened > forbid_additional_properties else i


def _call_in(text: str) -> tuple[int, int, str, str] | None:
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


def _word(marker: str) -> Any:
    return re.sub(r"\W", "", marker)
