"""Calls between markers that no format here knows: derived from the calls that the template renders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from server.chat.tool_calls.json_calls import JsonToolCallFormat, derive_json_syntax
from server.chat.tool_calls.named_calls import NamedToolCallFormat, derive_named_syntax
from server.chat.tool_calls.rendered_calls import RenderedCalls
from server.chat.tool_calls.tagged_calls import TaggedToolCallFormat, derive_tagged_syntax
from server.chat.tool_calls.tool_call_format import ToolCallFormat


class DerivedJsonFormat(JsonToolCallFormat):
    name = "derived"


class DerivedNamedFormat(NamedToolCallFormat):
    name = "derived-named"


class DerivedTaggedFormat(TaggedToolCallFormat):
    name = "derived-tagged"


# The first that recognizes a syntax applies.
_KINDS: tuple[tuple[Callable[[RenderedCalls], Any], Callable[[], Any]], ...] = (
    (derive_json_syntax, DerivedJsonFormat),
    (derive_named_syntax, DerivedNamedFormat),
    (derive_tagged_syntax, DerivedTaggedFormat),
)


def derive_format(calls: RenderedCalls) -> ToolCallFormat | None:
    """The format in which the template renders calls, if it can be recognized."""
    for derive_syntax, kind in _KINDS:
        if (syntax := derive_syntax(calls)) is not None:
            call_format = kind()
            call_format.syntax = syntax
            return cast(ToolCallFormat, call_format)
    return None
