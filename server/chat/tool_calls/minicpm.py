"""MiniCPM 5: `<function name="…"><param name="…">…</param></function>`, with CDATA sections."""

from __future__ import annotations

from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class MiniCpmFormat(TaggedToolCallFormat):
    name = "minicpm"
    template_has = ('<function name="', '<param name="')
    syntax = TaggedSyntax(
        CallFrame('<function name="', "", '</function>\n<function name="', "</function>"),
        '">',
        '<param name="',
        '">',
        "</param>",
        cdata=True,
    )
