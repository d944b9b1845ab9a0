"""Calls between markers that no format here knows: derived from the calls that the template renders."""

from __future__ import annotations

from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat, derive_json_syntax
from server.chat.tool_calls.named_calls import NamedSyntax, NamedToolCallFormat, derive_named_syntax
from server.chat.tool_calls.rendered_calls import RenderedCalls
from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat, derive_tagged_syntax
from server.chat.tool_calls.tool_call_format import ToolCallFormat


class DerivedJsonFormat(JsonToolCallFormat):
    name = "derived"

    def __init__(self, syntax: JsonSyntax) -> None:
        self.syntax = syntax

    def detects(self, source: str) -> bool:
        return False


class DerivedNamedFormat(NamedToolCallFormat):
    name = "derived-named"

    def __init__(self, syntax: NamedSyntax) -> None:
        self.syntax = syntax

    def detects(self, source: str) -> bool:
        return False


class DerivedTaggedFormat(TaggedToolCallFormat):
    name = "derived-tagged"

    def __init__(self, syntax: TaggedSyntax) -> None:
        self.syntax = syntax

    def detects(self, source: str) -> bool:
        return False


def derive_format(calls: RenderedCalls) -> ToolCallFormat | None:
    """The format in which the template renders calls, if it can be recognized."""
    if (json := derive_json_syntax(calls)) is not None:
        return DerivedJsonFormat(json)
    if (named := derive_named_syntax(calls)) is not None:
        return DerivedNamedFormat(named)
    if (tagged := derive_tagged_syntax(calls)) is not None:
        return DerivedTaggedFormat(tagged)
    return None
