"""GLM 4.5 and later, Ling, Laguna, Spark, Hunyuan 3: `<tool_call>name<arg_key>…</arg_key><arg_value>…`."""

from __future__ import annotations

from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


class GlmFormat(TaggedToolCallFormat):
    name = "glm"
    template_has = ("<tool_call>", "<arg_key>")
    syntax = TaggedSyntax(
        CallFrame("<tool_call>", "", "</tool_call>\n<tool_call>", "</tool_call>"),
        "\n",
        "<arg_key>",
        "</arg_key>\n<arg_value>",
        "</arg_value>\n",
    )


class Hunyuan3Format(TaggedToolCallFormat):
    name = "hunyuan3"
    syntax = TaggedSyntax(
        CallFrame(
            "<tool_calls:opensource>",
            "\n<tool_call:opensource>",
            "</tool_call:opensource>\n<tool_call:opensource>",
            "</tool_call:opensource>\n</tool_calls:opensource>",
        ),
        "<tool_sep:opensource>\n",
        "<arg_key:opensource>",
        "</arg_key:opensource>\n<arg_value:opensource>",
        "</arg_value:opensource>\n",
    )

    def detects(self, source: str) -> bool:
        return "<tool_sep{}>" in source or "<tool_sep:opensource>" in source
